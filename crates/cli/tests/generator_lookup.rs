//! Only commands that may change images look for the program that makes them.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

use assert_cmd::Command;
use testroot::TestRoot;

/// Returns true if a command looks for the generator: the log then names the unknown one in the settings.
fn looks_for_generator(root: &TestRoot, words: &[&str]) -> bool {
    let output = Command::cargo_bin("dkms")
        .unwrap()
        .arg("--root")
        .arg(root.path())
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap().contains("unknown [initramfs] generator")
}

#[test]
fn commands_that_only_read_look_for_no_generator() {
    let root = TestRoot::new();
    root.source("foo", "1.0");
    root.write("etc/dkms/alpm-dkms.toml", "[initramfs]\ngenerator = \"some-generator\"\n");
    for words in [&["status"][..], &["cache"], &["--help"], &["--version"]] {
        assert!(!looks_for_generator(&root, words), "{words:?}");
    }
    assert!(looks_for_generator(&root, &["initramfs", "--dry-run"]));
}
