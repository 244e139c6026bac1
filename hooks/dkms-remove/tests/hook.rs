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

/// Runs the hooks as one pacman does, after the transaction. What exists has arrived, and the other
/// targets have departed. Returns the output of dkms-install and of dkms-remove.
fn both_hooks(root: &TestRoot, targets: &str) -> [String; 2] {
    let (arrived, departed): (Vec<&str>, Vec<&str>) =
        targets.lines().partition(|path| root.exists(path));
    let run = |hook: &str, flags: &[&str], targets: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin(hook));
        command.args(flags).arg("--root").arg(root.path()).env("PATH", root.search_path());
        let output = command.write_stdin(targets.join("\n")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    run("dkms-remove", &["--journal"], &departed);
    run("dkms-install", &["--journal"], &arrived);
    [run("dkms-install", &[], &arrived), run("dkms-remove", &[], &departed)]
}

/// Returns a machine with foo/1.0 installed and then replaced by foo/2.0, which does not build.
fn root_with_failing_upgrade(make: &str) -> TestRoot {
    let root = TestRoot::new();
    root.kernel("7.2.13-arch1-1").pkgbase("linux").headers();
    root.source("foo", "1.0");
    root.depmod();
    let targets = "usr/src/foo-1.0/dkms.conf\n";
    let [output, _] = both_hooks(&root, targets);
    assert!(output.contains("built and installed"), "{output}");
    root.remove("usr/src/foo-1.0");
    root.source("foo", "2.0").conf_line(&format!("MAKE='{make}'"));
    root
}

#[test]
fn a_failure_is_reported_once_in_a_transaction() {
    for (make, is_pending) in [("echo no; exit 1", false), ("no-such-program", true)] {
        let root = root_with_failing_upgrade(&format!("echo x >> $dkms_tree/.tries; {make}"));
        let targets = "usr/src/foo-1.0/dkms.conf\nusr/src/foo-2.0/dkms.conf\n";
        let [install, remove] = both_hooks(&root, targets);
        assert_eq!(install.matches("foo/2.0 for 7.2.13-arch1-1").count(), 2, "{install}");
        assert_eq!(install.matches("foo/1.0").count(), 1, "{install}");
        assert!(install.contains("  note: foo/1.0 stays installed"), "{install}");
        assert_eq!(remove, "");
        let pending = root.listing("var/lib/dkms/.pending");
        assert_eq!(pending.contains("foo_2.0"), is_pending, "{pending}");
        assert_eq!(root.read("var/lib/dkms/.tries"), "x\n");
        // The next transaction reports the failure again.
        let [install, remove] = both_hooks(&root, "usr/src/foo-2.0/dkms.conf\n");
        assert!(install.contains("foo/2.0") && remove.is_empty(), "{install}{remove}");
        assert_eq!(install.matches("foo/1.0").count(), 1, "{install}");
    }
}

#[test]
fn a_transaction_that_only_removes_reports_everything() {
    let root = root_with_failing_upgrade("echo no; exit 1");
    // Another process ran dkms-install, so its report belongs to another transaction.
    let [install, _] = both_hooks(&root, "usr/src/foo-2.0/dkms.conf\n");
    assert!(install.contains("FAILED"), "{install}");
    let told = root.read("var/lib/dkms/.cache/transaction.json");
    let pid = std::process::id().to_string();
    root.write("var/lib/dkms/.cache/transaction.json", told.replace(&pid, "1"));
    let output = hook(&root, &[], "usr/src/foo-1.0/dkms.conf\n");
    assert!(output.contains("foo/2.0: skipped for 7.2.13-arch1-1"), "{output}");
}
