//! Invalid dkms.conf files, and those that exit early or never end.

use std::time::{Duration, Instant};

use stories::{Recipe, Root, find};

use crate::fixture::{assert_status, installed, kernel, release};

/// A syntax error, an `exit`, an endless loop, and a conf that ignores signals.
#[test]
fn invalid_confs_fail_only_their_modules() {
    let root = Root::ready();
    let conf = |name: &str, text: &str| Recipe::module(name, "1.0").source("dkms.conf", text);
    let packages = [
        conf("broken", "PACKAGE_NAME=\"broken\"\nif true; then\n").make(&root),
        conf("leaving", "PACKAGE_NAME=leaving\nPACKAGE_VERSION=1.0\nexit 3\n").make(&root),
        conf("endless", "PACKAGE_NAME=endless\nwhile :; do sleep 1; done\n").make(&root),
        conf("deaf", "trap '' TERM INT HUP\nsleep 1000\n").make(&root),
        find("bbswitch"),
    ];
    let started = Instant::now();
    let output = root.install(&[&kernel("linux", 1)[..], &packages].concat()).hooks_fail();
    assert!(started.elapsed() < Duration::from_secs(150), "it took {:?}", started.elapsed());
    root.assert_works(&release(), "bbswitch");
    for name in ["broken", "leaving", "endless", "deaf"] {
        let named = output
            .lines()
            .into_iter()
            .any(|line| line.contains(name) && line.contains("dkms.conf"));
        assert!(named, "the conf of {name} is not reported:\n{}", output.text);
        root.assert_absent(&release(), name);
    }
    assert_eq!(root.installed_objects(&release()), ["updates/dkms/bbswitch.ko.zst"]);
    root.assert_settled();

    // Their packages can be removed.
    root.remove(&["broken-dkms", "leaving-dkms", "endless-dkms", "deaf-dkms"]).hooks_succeed();
    assert_status(&root, &[installed(find("bbswitch").module(), &release())]);
    assert_eq!(root.tree(), ["bbswitch"]);
    root.assert_settled();
}

/// The conf writes to its standard output and starts a background process.
#[test]
fn conf_that_prints_output_is_accepted() {
    let root = Root::ready();
    let noisy = Recipe::module("noisy", "1.0")
        .conf_line("echo noise; echo noise >&2; printf 'a\\0b'; sleep 1000 &")
        .conf_line("BUILT_MODULE_NAME[0]='noisy'  # \"quoted\"")
        .make(&root);
    root.install(&[&kernel("linux", 1)[..], &[noisy]].concat()).hooks_succeed();
    root.assert_works(&release(), "noisy");
    root.assert_settled();
}
