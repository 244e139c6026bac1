//! Options that override the settings of the machine.

use crate::fixture::{K1, ends, root};

#[test]
fn trees_can_be_elsewhere() {
    let root = root();
    root.dir("srv");
    let other = "--dkmstree /srv/dkms/";
    ends(&root, &format!("build foo/1.0 -k {K1} {other}"), 0);
    let built = format!("foo/1.0, {K1}, x86_64: built\n");
    assert_eq!(ends(&root, &format!("status {other}"), 0), built);
    assert_eq!(ends(&root, "status", 0), "");
    assert!(root.exists(format!("srv/dkms/foo/1.0/{K1}/x86_64/module/foo.ko")));
    ends(&root, "add foo/1.0 --sourcetree=/srv/src", 2);
}

#[test]
fn a_conf_can_be_another() {
    let root = root();
    let conf = root.read("usr/src/foo-1.0/dkms.conf");
    root.write("srv/other.conf", format!("{conf}DEST_MODULE_NAME[0]=renamed\n"));
    let other = root.at("srv/other.conf");
    let other = other.display();
    ends(&root, &format!("install foo/1.0 -k {K1} -c {other}"), 0);
    assert!(root.exists(format!("usr/lib/modules/{K1}/updates/dkms/renamed.ko")));
    ends(&root, &format!("add -c {other}.none -m foo -v 1.0"), 3);
    ends(&root, "remove foo/1.0 --all", 0);
    ends(&root, &format!("add -c {other}.none -m foo -v 1.0"), 4);
}

#[test]
fn directives_come_last() {
    let root = root();
    let line = format!("install foo/1.0 -k {K1} --directive=DEST_MODULE_NAME=renamed");
    ends(&root, &line, 0);
    assert!(root.exists(format!("usr/lib/modules/{K1}/updates/dkms/renamed.ko")));
    ends(&root, "build foo/1.0 --directive nonsense", 2);
}

#[test]
fn a_kernel_can_have_its_headers_elsewhere() {
    let root = root();
    let headers = root.at("srv/headers");
    root.dir("srv");
    std::fs::rename(root.at(format!("usr/lib/modules/{K1}/build")), &headers).unwrap();
    ends(&root, &format!("build foo/1.0 -k {K1}"), 21);
    ends(&root, &format!("build foo/1.0 -k {K1} --kernelsourcedir /nowhere"), 21);
    ends(&root, &format!("build foo/1.0 -k {K1} --kernelsourcedir={}", headers.display()), 0);
}

#[test]
fn a_configuration_can_be_another() {
    let root = root();
    root.source("picky", "1").conf_line("BUILD_EXCLUSIVE_CONFIG=\"CONFIG_PICKY\"");
    root.write("srv/config", "CONFIG_PICKY=m\n");
    let config = root.at("srv/config");
    ends(&root, &format!("build picky/1 -k {K1}"), 77);
    ends(&root, &format!("build picky/1 -k {K1} --config {}", config.display()), 0);
}

#[test]
fn a_machine_can_always_be_verbose() {
    let root = root();
    root.write("etc/dkms/framework.conf.d/verbose.conf", "verbose=1\n");
    let said = ends(&root, &format!("build foo/1.0 -k {K1}"), 0);
    assert!(said.contains("not built yet) ...\n"), "{said}");
    assert!(said.contains("# command: make"), "{said}");
    assert_eq!(ends(&root, &format!("build foo/1.0 -k {K1} --force -q"), 0), "");
}
