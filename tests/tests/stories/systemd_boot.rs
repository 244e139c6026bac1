//! A machine boots with systemd, which finishes pending work and loads the module that was missing.

use stories::{DiskMachine, Recipe, Root, find};

use crate::fixture::{installed, kernel};
use crate::killed_hooks::unpack;

/// The unit that looks at the result of the boot.
const TRIAL_UNIT: &str = "[Unit]
After=alpm-dkms-pending.service
[Service]
Type=oneshot
ExecStart=/usr/bin/bash /srv/trial
";

/// Runs before the unit that finishes pending work, but after the service that loads modules.
const BEFORE: &str = "[Service]
ExecStartPre=/usr/bin/bash -c 'ls /sys/module/tiny >/srv/before 2>&1; exit 0'
";

/// The script of the unit.
const TRIAL: &str = r#"
exec >/dev/console 2>&1
echo
say() { while read -r line; do printf 'trial: %s: %s\n' "$1" "$line"; done; }
say before </srv/before
systemctl is-active systemd-modules-load.service | say service
systemctl show --property=ExecMainStatus --value alpm-dkms-pending.service | say unit
say version </sys/module/tiny/version
dkms status | say status
systemctl reboot --force --force
"#;

/// Returns a machine on which pacman was interrupted after it had unpacked a module that
/// modules-load.d lists. The module's build is in the cache, because compilers are slow in QEMU.
fn interrupted_machine() -> (Root, DiskMachine) {
    // This stage contains Debian's systemd.
    let root = Root::ready_with("dracut");
    root.write("etc/dkms/alpm-dkms.toml", "initramfs.generator = \"none\"\n");
    let tiny = Recipe::module("tiny", "1.0").make(&root);
    let kernel = kernel("linux-true", 2);
    root.install(&kernel);
    // dkms reads all headers, which takes most of the time in QEMU.
    let headers = format!("/usr/lib/modules/{}/build/include", kernel[0].release());
    root.shell(&format!("cd {headers} && rm -r dt-bindings drm media net rdma scsi soc sound"))
        .ok();
    root.install(std::slice::from_ref(&tiny)).hooks_succeed();
    root.remove(&["tiny-dkms"]).hooks_succeed();
    unpack(&root, || drop(root.install(std::slice::from_ref(&tiny))));
    root.assert_absent(kernel[0].release(), "tiny");

    root.write("etc/modules-load.d/tiny.conf", "tiny\n");
    // Without this file, systemd would treat the boot as the first one and enable units.
    root.write("etc/machine-id", "00000000000000000000000000000001\n");
    root.write("etc/systemd/system/trial.service", TRIAL_UNIT);
    root.write("etc/systemd/system/alpm-dkms-pending.service.d/before.conf", BEFORE);
    root.write("srv/trial", TRIAL);
    root.write("srv/init", "#!/bin/sh\nexec /usr/lib/systemd/systemd \"$@\"\n");
    let wants = "/etc/systemd/system/multi-user.target.wants";
    root.shell(&format!("mkdir -p {wants} && ln -s ../trial.service {wants}")).ok();
    root.shell("rm -rf /var/lib/apt /var/cache/* /usr/share/doc /usr/share/locale").ok();
    let vmlinuz = format!("usr/lib/modules/{}/vmlinuz", kernel[0].release());
    let machine = DiskMachine::new(&root, &vmlinuz);
    (root, machine)
}

#[test]
fn boot_finishes_pending_work_and_loads_the_module() {
    let (_root, machine) = interrupted_machine();
    // Only what a boot without users and devices needs. hwdb(7) is not updated.
    let mask = ["systemd-logind", "serial-getty@ttyS0", "systemd-udev-trigger"]
        .map(|unit| format!("systemd.mask={unit}.service"));
    let words = "systemd.unit=multi-user.target systemd.condition_needs_update=no";
    let words = format!("{words} systemd.show_status=no {}", mask.join(" "));
    let console = machine.start(&words).finish();
    let lines: Vec<&str> =
        console.lines().filter_map(|line| line.strip_prefix("trial: ")).collect();
    let want = [
        "before: ls: cannot access '/sys/module/tiny': No such file or directory",
        "service: active",
        "unit: 0",
        "version: 1.0",
        &format!("status: {}", installed("tiny/1.0", &find("linux-true-2").content)),
    ];
    assert_eq!(lines, want, "console:\n{console}");
}
