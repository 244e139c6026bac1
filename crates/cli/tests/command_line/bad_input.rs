//! Tests of malformed confs and trees: each causes an error with dkms's exit code and changes
//! nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use rstest::rstest;
use testroot::TestRoot;

use crate::fixture::{CallOutput, K1, dkms, dkms_obeying_modes, root, run};

/// Lists all files except those that only alpm-dkms keeps in the dkms tree.
fn listing(root: &TestRoot) -> Vec<String> {
    let own = |line: &&str| !line.contains("var/lib/dkms/.");
    root.listing("").lines().filter(own).map(str::to_owned).collect()
}

fn set_mode(root: &TestRoot, path: &str, mode: u32) {
    fs::set_permissions(root.at(path), Permissions::from_mode(mode)).unwrap();
}

/// Returns `text` repeated to a length of fifty megabytes.
fn much(text: &str) -> String {
    text.repeat(50_000_000 / text.len())
}

#[track_caller]
fn assert_refused(output: &CallOutput, code: i32, why: &str) {
    let text = format!("{}{}", output.out, output.errors);
    assert_eq!(output.code, code, "{text}");
    assert!(output.errors.contains("usr/src/foo-1.0/dkms.conf"), "{text}");
    assert!(output.errors.contains(why), "{text}");
}

#[rstest]
#[case::empty(60, "", "PACKAGE_NAME is not set")]
#[case::only_comments(60, "# nothing\n", "PACKAGE_NAME is not set")]
#[case::loops(2, "while :; do :; done\n", "timed out after 2 s")]
#[case::waits(2, "read -r line </dev/zero\n", "timed out after 2 s")]
#[case::binary(60, "\u{7f}ELF\0\0\u{1}", "not a text")]
#[case::huge(60, &format!("MAKE='{}'\n", much("x")), "maximum 8388608")]
fn an_unusable_conf_is_refused(#[case] timeout: u32, #[case] conf: &str, #[case] why: &str) {
    let root = root();
    root.write("etc/dkms/alpm-dkms.toml", format!("[conf]\ntimeout = {timeout}\n"));
    root.source("bar", "1");
    let good = root.read("usr/src/foo-1.0/dkms.conf");
    root.write("usr/src/foo-1.0/dkms.conf", conf);
    let before = listing(&root);
    for command in ["add", "build", "install"] {
        assert_refused(&dkms(&root, &format!("{command} foo/1.0 -k {K1}")), 8, why);
        assert_eq!(listing(&root), before, "{command}");
    }
    // The conf was valid when the module was added.
    root.write("usr/src/foo-1.0/dkms.conf", good);
    run(&root, "add foo/1.0", 0);
    root.write("usr/src/foo-1.0/dkms.conf", conf);
    let before = listing(&root);
    assert_refused(&dkms(&root, &format!("install foo/1.0 -k {K1}")), 8, why);
    assert_eq!(listing(&root), before);
    assert_eq!(run(&root, "status", 0), "foo/1.0: added\n");
    // Other modules are unaffected, and the module can be removed.
    run(&root, &format!("install bar/1 -k {K1}"), 0);
    run(&root, "remove foo/1.0 --all", 0);
    assert_eq!(run(&root, "status", 0), format!("bar/1, {K1}, x86_64: installed\n"));
}

#[test]
fn an_unreadable_conf_is_refused() {
    let root = root();
    set_mode(&root, "usr/src/foo-1.0/dkms.conf", 0);
    let before = listing(&root);
    for command in ["add", "build", "install"] {
        let output = dkms_obeying_modes(&root, &format!("{command} foo/1.0 -k {K1}"));
        assert_refused(&output, 4, "dkms.conf: Permission denied");
        assert_eq!(listing(&root), before, "{command}");
    }
}

/// Each case gives the tree that is unwritable, the command, and dkms's exit code.
#[rstest]
#[case::nothing_is_added("var/lib/dkms", "add foo/1.0", 1)]
#[case::nothing_is_built("var/lib/dkms", "build foo/1.0 -k K1", 1)]
#[case::nothing_is_installed("var/lib/dkms", "install foo/1.0 -k K1", 1)]
#[case::nothing_is_removed("var/lib/dkms", "remove bar/1 --all", 1)]
#[case::nothing_is_unbuilt("var/lib/dkms", "unbuild bar/1 -k K1", 1)]
#[case::nothing_is_placed("usr/lib/modules/K1", "install foo/1.0 -k K1", 6)]
#[case::no_source_is_copied("usr/src", "add checkout", 1)]
fn an_unwritable_tree_is_unchanged(#[case] tree: &str, #[case] line: &str, #[case] code: i32) {
    let root = root();
    let (tree, line) = (tree.replace("K1", K1), line.replace("K1", K1));
    root.source("bar", "1");
    run(&root, &format!("install bar/1 -k {K1}"), 0);
    let conf = root.read("usr/src/foo-1.0/dkms.conf").replace("\"foo\"", "\"new\"");
    root.write("checkout/dkms.conf", conf);
    let objects = |root: &TestRoot| root.listing(format!("usr/lib/modules/{K1}"));
    let before = (objects(&root), root.listing("usr/src"));
    let status = run(&root, "status bar", 0);
    let dirs: Vec<String> = root.listing(&tree).lines().map(str::to_owned).collect();
    let dirs = dirs.iter().filter_map(|line| line.strip_suffix('/')).chain([tree.as_str()]);
    let dirs: Vec<&str> = dirs.collect();
    for dir in &dirs {
        set_mode(&root, dir, 0o555);
    }
    let output = dkms_obeying_modes(&root, &line);
    for dir in &dirs {
        set_mode(&root, dir, 0o755);
    }
    assert_eq!(output.code, code, "{}{}", output.out, output.errors);
    assert!(output.errors.contains(&tree), "{}", output.errors);
    assert_eq!((objects(&root), root.listing("usr/src")), before);
    assert_eq!(run(&root, "status bar", 0), status);
    assert!(!root.listing("").contains(".tmp-"), "{}", root.listing(""));
}

#[test]
fn foreign_files_in_the_tree_are_ignored() {
    let root = root();
    run(&root, &format!("build foo/1.0 -k {K1}"), 0);
    let tree = "var/lib/dkms";
    for file in ["README", "foo/notes", "other/notes", "odd name/1 0/x", "lost+found/x/y/z"] {
        root.write(format!("{tree}/{file}"), "");
    }
    root.write(format!("{tree}/bar/1/source"), "no link");
    root.link(format!("{tree}/loop"), "loop");
    root.write("elsewhere/x/y", "");
    root.link(format!("{tree}/out/1"), root.at("elsewhere"));
    let _listener = UnixListener::bind(root.at(format!("{tree}/socket"))).unwrap();
    let foreign: Vec<String> =
        listing(&root).into_iter().filter(|line| !line.contains("dkms/foo/1.0")).collect();
    let elsewhere = root.listing("elsewhere");

    let status = run(&root, "status foo", 0);
    assert_eq!(status, format!("foo/1.0, {K1}, x86_64: built\n"));
    root.write(format!("{tree}/foo/1.0/notes"), "");
    root.write(format!("{tree}/foo/1.0/{K1}/notes"), "");
    run(&root, &format!("install foo/1.0 -k {K1}"), 0);
    run(&root, &format!("autoinstall -k {K1}"), 0);
    run(&root, "remove foo/1.0 --all", 0);
    let left: Vec<String> = listing(&root);
    for line in foreign {
        assert!(left.contains(&line), "{line} was removed:\n{}", left.join("\n"));
    }
    assert_eq!(root.listing("elsewhere"), elsewhere);
    assert_eq!(run(&root, "status foo", 0), "");
}

#[test]
fn a_module_without_its_source_is_unchanged() {
    let root = root();
    run(&root, &format!("install foo/1.0 -k {K1}"), 0);
    root.source("bar", "1");
    run(&root, "add bar/1", 0);
    // Remove alpm-dkms's copy of the source; dkms keeps none.
    root.remove("var/lib/dkms/.kept");
    root.remove("usr/src/foo-1.0");
    root.remove("var/lib/dkms/foo/1.0/source");
    root.link("var/lib/dkms/foo/1.0/source", root.at("usr/src/foo-1.0"));
    let before = listing(&root);
    for command in ["build", "install", "uninstall", "unbuild", "remove", "mktarball"] {
        let output = dkms(&root, &format!("{command} foo/1.0 -k {K1}"));
        assert_eq!(output.code, 4, "{command}: {}{}", output.out, output.errors);
        assert!(output.errors.contains("broken: source missing"), "{command}: {}", output.errors);
        assert_eq!(listing(&root), before, "{command}");
    }
    // Other modules are unaffected.
    dkms(&root, &format!("autoinstall -k {K1}"));
    let placed = |name: &str| format!("usr/lib/modules/{K1}/updates/dkms/{name}.ko");
    assert!(root.exists(placed("bar")) && root.exists(placed("foo")));
}
