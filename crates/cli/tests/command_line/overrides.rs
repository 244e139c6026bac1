//! Tests of the options that override the machine's settings and files.

use crate::fixture::{K1, dkms, root, run};

#[test]
fn options_select_other_trees() {
    let root = root();
    root.dir("srv");
    let other = "--dkmstree /srv/dkms/";
    run(&root, &format!("build foo/1.0 -k {K1} {other}"), 0);
    let built = format!("foo/1.0, {K1}, x86_64: built\n");
    assert_eq!(run(&root, &format!("status {other}"), 0), built);
    assert_eq!(run(&root, "status", 0), "");
    assert!(root.exists(format!("srv/dkms/foo/1.0/{K1}/x86_64/module/foo.ko")));
    run(&root, "add foo/1.0 --sourcetree=/srv/src", 2);
}

#[test]
fn option_c_replaces_dkms_conf() {
    let root = root();
    let conf = root.read("usr/src/foo-1.0/dkms.conf");
    root.write("srv/other.conf", format!("{conf}DEST_MODULE_NAME[0]=renamed\n"));
    let other = root.at("srv/other.conf");
    let other = other.display();
    run(&root, &format!("install foo/1.0 -k {K1} -c {other}"), 0);
    assert!(root.exists(format!("usr/lib/modules/{K1}/updates/dkms/renamed.ko")));
    run(&root, &format!("add -c {other}.none -m foo -v 1.0"), 3);
    run(&root, "remove foo/1.0 --all", 0);
    run(&root, &format!("add -c {other}.none -m foo -v 1.0"), 4);
}

#[test]
fn directives_override_dkms_conf() {
    let root = root();
    let line = format!("install foo/1.0 -k {K1} --directive=DEST_MODULE_NAME=renamed");
    run(&root, &line, 0);
    assert!(root.exists(format!("usr/lib/modules/{K1}/updates/dkms/renamed.ko")));
    run(&root, "build foo/1.0 --directive nonsense", 2);
}

#[test]
fn option_kernelsourcedir_names_the_headers() {
    let root = root();
    let headers = root.at("srv/headers");
    root.dir("srv");
    std::fs::rename(root.at(format!("usr/lib/modules/{K1}/build")), &headers).unwrap();
    run(&root, &format!("build foo/1.0 -k {K1}"), 21);
    for (option, dir) in [("/nowhere", "/nowhere"), ("empty", "ROOT/empty")] {
        root.dir("empty");
        let call = dkms(&root, &format!("build foo/1.0 -k {K1} --kernelsourcedir {option}"));
        assert_eq!(call.code, 21);
        let want = format!(
            "dkms: error: foo/1.0 for {K1}: no kernel headers in {dir} (--kernelsourcedir)\n"
        );
        assert_eq!(call.errors, want);
    }
    run(&root, &format!("build foo/1.0 -k {K1} --kernelsourcedir={}", headers.display()), 0);
}

#[test]
fn option_config_replaces_the_kernel_configuration() {
    let root = root();
    root.source("picky", "1").conf_line("BUILD_EXCLUSIVE_CONFIG=\"CONFIG_PICKY\"");
    root.write("srv/config", "CONFIG_PICKY=m\n");
    let config = root.at("srv/config");
    run(&root, &format!("build picky/1 -k {K1}"), 77);
    run(&root, &format!("build picky/1 -k {K1} --config {}", config.display()), 0);
}

#[test]
fn a_setting_makes_every_run_verbose() {
    let root = root();
    root.write("etc/dkms/framework.conf.d/verbose.conf", "verbose=1\n");
    let output = run(&root, &format!("build foo/1.0 -k {K1}"), 0);
    assert!(output.contains("not built yet) ...\n"), "{output}");
    assert!(output.contains("# command: make"), "{output}");
    assert_eq!(run(&root, &format!("build foo/1.0 -k {K1} --force -q"), 0), "");
}
