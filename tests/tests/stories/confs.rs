//! A dkms.conf is a program: some are broken, some end early, some never.

use std::time::{Duration, Instant};

use stories::{Recipe, Root, find};

use crate::fixture::{assert_status, installed, kernel, release};

/// Story 11.
#[test]
fn only_the_module_with_a_bad_conf_fails() {
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
        assert!(named, "no line explains {name}:\n{}", output.text);
        root.assert_absent(&release(), name);
    }
    assert_eq!(root.placed(&release()), ["updates/dkms/bbswitch.ko.zst"]);
    root.assert_settled();

    // They go as they came.
    root.remove(&["broken-dkms", "leaving-dkms", "endless-dkms", "deaf-dkms"]).hooks_succeed();
    assert_status(&root, &[installed(find("bbswitch").module(), &release())]);
    assert_eq!(root.tree(), ["bbswitch"]);
    root.assert_settled();
}

/// Story 11: what a conf prints or leaves running reaches nobody.
#[test]
fn a_noisy_conf_is_read_all_the_same() {
    let root = Root::ready();
    let noisy = Recipe::module("noisy", "1.0")
        .conf_line("echo noise; echo noise >&2; printf 'a\\0b'; sleep 1000 &")
        .conf_line("BUILT_MODULE_NAME[0]='noisy'  # \"quoted\"")
        .make(&root);
    root.install(&[&kernel("linux", 1)[..], &[noisy]].concat()).hooks_succeed();
    root.assert_works(&release(), "noisy");
    root.assert_settled();
}
