//! The hook binary, called as pacman calls it.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

use assert_cmd::Command;
use testroot::TestRoot;

const K: &str = "7.2.13-arch1-1";
const TARGETS: &[u8] = b"usr/lib/modules/7.2.13-arch1-1/modules.order\nusr/src/foo-1.0/dkms.conf\n";

/// What the hook printed; it has to end well.
fn hook(root: &TestRoot, words: &[&str], targets: &[u8]) -> String {
    let output = Command::cargo_bin("dkms-install")
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

#[test]
fn notes_what_is_about_to_change() {
    let root = TestRoot::new();
    hook(&root, &["--journal"], TARGETS);
    hook(&root, &["--journal"], TARGETS);
    let pending = root.listing("var/lib/dkms/.pending");
    let page = pending.lines().find(|line| line.ends_with(".toml")).unwrap_or_default();
    assert_eq!(pending.lines().count(), 1, "the same transaction is noted once: {pending}");
    let text = root.read(page);
    assert!(text.contains("foo-1.0") && text.contains("7.2.13-arch1-1"), "{text}");
}

#[test]
fn says_what_it_would_do() {
    let root = TestRoot::new();
    root.kernel(K).pkgbase("linux").headers();
    root.source("foo", "1.0");
    let said = hook(&root, &["--dry-run"], TARGETS);
    assert!(said.contains("build foo/1.0 for 7.2.13-arch1-1 (not built yet)"), "{said}");
    assert!(said.ends_with("Dry run: nothing was changed.\n"), "{said}");
}

#[test]
fn is_silent_where_there_are_no_modules() {
    let root = TestRoot::new();
    root.remove("var/lib/dkms");
    root.kernel(K).pkgbase("linux");
    assert_eq!(hook(&root, &[], TARGETS), "");
    assert!(!root.exists("var/lib/dkms"));
}

#[test]
fn says_where_headers_are_missing() {
    let root = TestRoot::new();
    root.kernel(K).pkgbase("linux-zen");
    root.source("foo", "1.0");
    let said = hook(&root, &[], b"usr/src/foo-1.0/dkms.conf\n\xff\xfe\n/etc/passwd\n../x\n");
    assert!(said.contains("install linux-zen-headers"), "{said}");
}

/// There is no alpm-query beside the tested program: it would be missed in words.
#[test]
fn asks_for_packages_only_where_something_is_told() {
    let root = TestRoot::new();
    root.kernel(K).pkgbase("linux").headers();
    root.source("foo", "1.0");
    let targets = b"usr/lib/modules/7.2.13-arch1-1/build/include/\nusr/src/foo-1.0/dkms.conf\n";
    let asked = "warning: cannot look up package names";
    assert!(hook(&root, &[], targets).contains(asked));
    assert_eq!(hook(&root, &[], targets), "", "there was nothing to do");
    // As pacman calls it.
    hook(&root, &["--journal"], targets);
    assert_eq!(hook(&root, &[], targets), "");
    assert!(!root.exists("var/lib/dkms/.pending"));
    // A kernel may be a copy from now on, which no package owns.
    assert!(hook(&root, &[], TARGETS).contains(asked));
    // So may one that an earlier transaction left.
    hook(&root, &["--journal"], b"usr/lib/modules/7.2.12-arch1-1/modules.order\n");
    assert!(hook(&root, &[], targets).contains(asked));
}
