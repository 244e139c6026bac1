//! Tests that only commands that may change images look for an initramfs generator.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

use assert_cmd::Command;
use testroot::TestRoot;

/// Returns true if a command looks for a generator. Such a command warns that the generator in the
/// settings is unknown.
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
fn only_commands_that_change_images_look_for_a_generator() {
    let root = TestRoot::new();
    root.source("foo", "1.0");
    root.write("etc/dkms/alpm-dkms.toml", "[initramfs]\ngenerator = \"some-generator\"\n");
    for words in [&["status"][..], &["cache"], &["--help"], &["--version"]] {
        assert!(!looks_for_generator(&root, words), "{words:?}");
    }
    assert!(looks_for_generator(&root, &["initramfs", "--dry-run"]));
}
