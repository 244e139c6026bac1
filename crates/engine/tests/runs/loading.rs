//! Tests of loading modules after their installation for the running kernel.

use std::fs;

use rstest::rstest;

use crate::fixture::{Fixture, K1, assert_clean};

/// Installs foo/1.0 for a kernel. Returns the arguments of modprobe and those of systemctl.
fn install_for(release: &str, settings: &str, by_systemd: bool) -> [Vec<String>; 2] {
    let mut fixture = Fixture::without_kernels();
    fixture.root.kernel(release).pkgbase("linux").headers();
    fixture.root.source("foo", "1.0");
    fixture.root.write("etc/dkms/framework.conf", settings);
    fixture.root.write("sys/devices/pci0/modalias", "pci:v00001AF4");
    fixture.root.write("lib/systemd/system/systemd-modules-load.service", "");
    let mut machine = fixture.machine();
    machine.tools.modprobe = fixture.root.program("modprobe", "");
    machine.tools.systemctl = fixture.root.program("systemctl", "");
    machine.options.by_systemd = by_systemd;
    assert_clean(&fixture.sync_on(&machine, &["foo-1.0"]));
    // This run installs nothing.
    assert_clean(&fixture.sync_on(&machine, &["foo-1.0"]));
    ["modprobe", "systemctl"].map(|name| fixture.root.calls(name))
}

#[rstest]
#[case::by_a_systemd_unit("", true, &[], &["restart systemd-modules-load.service"])]
#[case::by_the_user("", false, &[], &[])]
#[case::if_the_setting_is_on(
    "modprobe_on_install=1",
    false,
    &["-a -b -q -- pci:v00001AF4"],
    &["restart systemd-modules-load.service"]
)]
fn modules_of_the_running_kernel_are_loaded(
    #[case] settings: &str,
    #[case] by_systemd: bool,
    #[case] modprobe: &[&str],
    #[case] systemctl: &[&str],
) {
    let running = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let calls = install_for(running.trim(), settings, by_systemd);
    assert_eq!(calls, [modprobe, systemctl]);
}

#[test]
fn modules_of_another_kernel_are_not_loaded() {
    assert_eq!(install_for(K1, "modprobe_on_install=1", true), [[""; 0]; 2]);
}
