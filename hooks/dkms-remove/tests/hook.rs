//! Tests of the hook binary, run with arguments and targets as pacman passes them.

#![expect(clippy::unwrap_used, reason = "this file contains only tests")]

use assert_cmd::Command;
use testroot::TestRoot;

/// Runs the hook, asserts that it succeeds, and returns its standard output.
fn hook(root: &TestRoot, words: &[&str], targets: &str) -> String {
    let output = Command::cargo_bin("dkms-remove")
        .unwrap()
        .arg("--root")
        .arg(root.path())
        .args(words)
        .write_stdin(targets)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns a machine with an added module that has not been built. The dkms tree also contains
/// files that only alpm-dkms uses.
fn root() -> TestRoot {
    let root = TestRoot::new();
    root.source("foo", "1.0");
    root.link("var/lib/dkms/foo/1.0/source", "/usr/src/foo-1.0");
    root.write("var/lib/dkms/.pending/source-foo.toml", "");
    root.write("var/lib/dkms/.cache/digests", "");
    root.write("var/lib/dkms/.kept/foo-1.0/dkms.conf", "");
    root
}

#[test]
fn removes_a_module_without_a_source() {
    let root = root();
    root.remove("usr/src/foo-1.0");
    root.remove("var/lib/dkms/.pending");
    let output = hook(&root, &[], "usr/src/foo-1.0/dkms.conf\n");
    assert!(output.contains("foo/1.0: removed"), "{output}");
    assert!(!root.exists("var/lib/dkms/foo"), "{}", root.listing("var"));
    assert!(!root.exists("var/lib/dkms/.kept"), "{}", root.listing("var"));
}

#[test]
fn keeps_a_module_with_a_source() {
    let root = root();
    root.remove("var/lib/dkms/.pending");
    hook(&root, &[], "usr/src/foo-1.0/dkms.conf\n");
    assert!(root.exists("var/lib/dkms/foo/1.0/source"));
}

#[test]
fn departing_with_the_last_module_removes_the_dkms_tree() {
    let root = root();
    hook(&root, &["--depart"], "alpm-dkms\nusr/src/foo-1.0/dkms.conf\n");
    assert!(!root.exists("var/lib/dkms"), "{}", root.listing("var"));
    assert!(root.exists("usr/src/foo-1.0"));
}

#[test]
fn departing_in_favour_of_dkms_keeps_its_tree() {
    let root = root();
    hook(&root, &["--depart"], "alpm-dkms\nusr/bin/dkms\n");
    assert_eq!(
        root.listing("var/lib/dkms"),
        "var/lib/dkms/foo/\n\
         var/lib/dkms/foo/1.0/\n\
         var/lib/dkms/foo/1.0/source -> /usr/src/foo-1.0\n"
    );
}

#[test]
fn departs_only_if_alpm_dkms_is_removed() {
    let root = root();
    let before = root.listing("");
    assert_eq!(hook(&root, &["--depart"], "usr/src/foo-1.0/dkms.conf\n"), "");
    assert_eq!(root.listing(""), before);
}
