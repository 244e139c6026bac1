//! The hook binary, called as pacman calls it.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

use assert_cmd::Command;
use testroot::TestRoot;

/// What the hook printed; it has to end well.
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

/// A module that is added and nothing more, with traces of ours beside it.
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
fn forgets_a_module_whose_source_is_gone() {
    let root = root();
    root.remove("usr/src/foo-1.0");
    root.remove("var/lib/dkms/.pending");
    let said = hook(&root, &[], "usr/src/foo-1.0/dkms.conf\n");
    assert!(said.contains("foo 1.0: removed"), "{said}");
    assert!(!root.exists("var/lib/dkms/foo"), "{}", root.listing("var"));
    assert!(!root.exists("var/lib/dkms/.kept"), "{}", root.listing("var"));
}

#[test]
fn leaves_a_module_whose_source_is_there() {
    let root = root();
    root.remove("var/lib/dkms/.pending");
    hook(&root, &[], "usr/src/foo-1.0/dkms.conf\n");
    assert!(root.exists("var/lib/dkms/foo/1.0/source"));
}

#[test]
fn leaves_nothing_when_we_leave_with_the_last_module() {
    let root = root();
    hook(&root, &["--depart"], "alpm-dkms\nusr/src/foo-1.0/dkms.conf\n");
    assert!(!root.exists("var/lib/dkms"), "{}", root.listing("var"));
    assert!(root.exists("usr/src/foo-1.0"));
}

#[test]
fn leaves_the_tree_to_dkms() {
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
fn departs_in_no_other_transaction() {
    let root = root();
    let before = root.listing("");
    assert_eq!(hook(&root, &["--depart"], "usr/src/foo-1.0/dkms.conf\n"), "");
    assert_eq!(root.listing(""), before);
}
