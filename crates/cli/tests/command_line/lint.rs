//! Tests of `dkms lint`.

use testroot::TestRoot;

use crate::fixture::{K1, dkms, dkms_obeying_modes, root, run};

/// Returns a root with a source in `srv/foo`, whose dkms.conf ends with `extra`.
fn checkout(extra: &str) -> TestRoot {
    let root = root();
    root.source("foo", "1.0").conf_line("BUILD_EXCLUSIVE_KERNEL_MIN=6.1").conf_line(extra);
    root.dir("srv");
    std::fs::rename(root.at("usr/src/foo-1.0"), root.at("srv/foo")).unwrap();
    root
}

#[test]
fn prints_each_mistake_with_its_place_and_correction() {
    let root = checkout("CLEAN='make clean'\nAUTOINSTAL=no\nv=$(uname -r)");
    assert_eq!(
        run(&root, "lint srv/foo", 1),
        "\
note: srv/foo/dkms.conf:7: CLEAN is deprecated and has no effect; remove it
error: srv/foo/dkms.conf:8: AUTOINSTAL is not a directive; did you mean AUTOINSTALL?
warning: srv/foo/dkms.conf:9: uname names the running kernel, not the target; use $kernelver
1 error, 1 warning, 1 note
"
    );
}

#[test]
fn warnings_fail_only_with_strict() {
    let root = checkout("v=$(uname -r)");
    for (line, code) in [("lint ./srv/foo", 0), ("lint --strict ./srv/foo/dkms.conf", 1)] {
        let output = run(&root, line, code);
        assert!(output.starts_with("warning: ./srv/foo/dkms.conf:7: uname"), "{line}: {output}");
    }
    let clean = checkout("");
    assert_eq!(run(&clean, "lint srv/foo --strict", 0), "no mistakes found\n");
}

#[test]
fn prints_json() {
    let root = checkout("CLEAN=x\nunset AUTOINSTALL");
    let json: serde_json::Value =
        serde_json::from_str(&run(&root, "lint srv/foo --json", 0)).unwrap();
    let finding = |severity: &str, line: Option<usize>, problem: &str, remedy: &str| {
        serde_json::json!({
            "severity": severity, "file": "dkms.conf", "line": line,
            "problem": problem, "remedy": remedy,
        })
    };
    let unset =
        "AUTOINSTALL is not set: most distributions do not build the module for new kernels";
    let remedy = "set AUTOINSTALL=\"yes\", or \"no\" if that is intended";
    let want = [
        finding("warning", None, unset, remedy),
        finding("note", Some(7), "CLEAN is deprecated and has no effect", "remove it"),
    ];
    assert_eq!(json, serde_json::json!({ "findings": want }));
}

#[test]
fn reads_archives() {
    let root = checkout("CLEAN=x");
    let tar = |words: &[&str]| {
        let mut tar = assert_cmd::Command::new("tar");
        tar.current_dir(root.at("srv")).args(words).assert().success();
    };
    tar(&["czf", "foo.tar.gz", "foo"]);
    let note = "CLEAN is deprecated and has no effect; remove it\n1 note\n";
    assert_eq!(run(&root, "lint srv/foo.tar.gz", 0), format!("note: foo/dkms.conf:7: {note}"));

    run(&root, &format!("build srv/foo -k {K1}"), 0);
    run(&root, &format!("mktarball foo/1.0 -k {K1} --archive ./full.tar.gz"), 0);
    let source = "dkms_source_tree/dkms.conf";
    assert_eq!(run(&root, "lint full.tar.gz", 0), format!("note: {source}:7: {note}"));
    run(&root, &format!("mktarball foo/1.0 -k {K1} --binaries-only --archive ./builds.tar.gz"), 0);
    let refused = dkms(&root, "lint builds.tar.gz");
    assert_eq!(
        refused.errors,
        "dkms: error: builds.tar.gz: the archive does not contain the source\n"
    );
    assert_eq!((refused.code, refused.out.as_str()), (7, ""));
}

#[test]
fn changes_nothing_and_needs_no_rights() {
    let root = checkout("CLEAN=x");
    root.remove("var/lib/dkms");
    let before = root.listing(".");
    let output = dkms_obeying_modes(&root, "lint srv/foo");
    assert_eq!((output.code, output.errors.as_str()), (0, ""));
    assert_eq!(root.listing("."), before);
}
