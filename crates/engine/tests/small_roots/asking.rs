//! How often a dkms.conf is asked, and what then counts.

use super::*;

/// A module whose conf notes each time that it is asked.
fn noting<'a>(machine: &'a TestMachine, name: &str) -> testroot::FakeSource<'a> {
    let file = machine.root.path().join("asked");
    machine
        .root
        .source(name, "1.0")
        .conf_line(&format!("echo {name} $kernelver >>{}; sleep 0.01", file.display()))
}

/// Who was asked since the last time.
fn asked(machine: &TestMachine) -> Vec<String> {
    let text = machine.root.read("asked");
    machine.root.write("asked", "");
    let mut asked: Vec<String> = text.lines().map(str::to_owned).collect();
    asked.sort();
    asked
}

#[test]
fn a_conf_is_asked_once_for_a_kernel() {
    let mut machine = TestMachine::with_kernel(K1);
    for name in ["a", "b", "c"] {
        noting(&machine, name);
    }
    clean(&machine.sync(&[], &[K1]));
    asked(&machine);

    machine.root.kernel(K2).pkgbase("linux").headers();
    clean(&machine.sync(&[], &[K2]));
    let once = ["a", "b", "c"].map(|name| format!("{name} {K2}"));
    assert_eq!(asked(&machine), once);
    for name in ["a", "b", "c"] {
        assert!(machine.root.exists(format!("usr/lib/modules/{K2}/updates/dkms/{name}.ko")));
    }
}

#[test]
fn a_conf_is_asked_again_when_what_it_builds_upon_is_there() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("spl", "1.0");
    let built = machine.root.path().join("var/lib/dkms/spl/1.0");
    noting(&machine, "zfs")
        .conf_line("BUILD_DEPENDS=spl")
        .conf_line(&format!("[[ -d {}/$kernelver ]] && BUILT_MODULE_NAME=zfs", built.display()));
    clean(&machine.sync(&[], &[K1]));
    asked(&machine);

    machine.root.kernel(K2).pkgbase("linux").headers();
    clean(&machine.sync(&[], &[K2]));
    assert_eq!(asked(&machine), [format!("zfs {K2}"), format!("zfs {K2}")]);
}
