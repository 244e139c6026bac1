//! Tests of calls with few rights or with low limits.

use std::os::unix::fs::PermissionsExt;

use assert_cmd::Command;
use nix::unistd::{Uid, chown};
use testroot::TestRoot;

use crate::fixture::{K1, dkms, dkms_through, root, run};

/// An unprivileged user.
const NOBODY: u32 = 65534;

/// Returns the words that run a program as [`NOBODY`]. Returns an empty list if this user is not
/// root.
fn as_nobody() -> Vec<String> {
    let id = NOBODY.to_string();
    match Uid::effective().is_root() {
        true => {
            ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"].map(str::to_owned).into()
        }
        false => Vec::new(),
    }
}

/// Creates a directory that the unprivileged user can write to.
fn writable(root: &TestRoot, path: &str) {
    root.dir(path);
    let owner = as_nobody().first().map(|_| NOBODY.into());
    chown(&root.at(path), owner, None).unwrap();
    // The temporary directory of the test belongs to root.
    let test_dir = root.path().parent().unwrap();
    std::fs::set_permissions(test_dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn fakeroot_builds_into_another_tree() {
    let root = root();
    root.source("bar", "2").file("Makefile", "obj-m := bar.o\n");
    writable(&root, "pkg");
    let mut before = as_nobody();
    before.push("fakeroot".into());
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    for (name, version) in [("foo", "1.0"), ("bar", "2")] {
        // PKGBUILDs call dkms like this.
        let line = format!("build --dkmstree /pkg -m {name}/{version} -k {K1}");
        let output = dkms_through(&before, &root, &line);
        assert_eq!(output.code, 0, "{}{}", output.out, output.errors);
        let object = format!("pkg/{name}/{version}/{K1}/x86_64/module/{name}.ko");
        assert!(root.exists(&object), "{}", root.listing("pkg"));
    }
    assert_eq!(root.listing("var/lib/dkms"), "", "the machine's own tree has changed");
    assert!(!root.exists(format!("usr/lib/modules/{K1}/updates")));
}

#[test]
fn a_low_limit_of_open_files_is_raised_or_named() {
    let limited = |limit: u32, rest: &str| {
        vec![
            "sh".to_owned(),
            "-c".into(),
            format!("ulimit -n {limit}; exec {rest} \"$@\""),
            "-".into(),
        ]
    };
    // Root may raise the hard limit, too, unless it lacks this capability.
    let as_user = match Uid::effective().is_root() {
        true => "setpriv --bounding-set=-sys_resource",
        false => "env",
    };
    for limit in [128, 200] {
        let root = root();
        let before = limited(limit, as_user);
        let before: Vec<&str> = before.iter().map(String::as_str).collect();
        let line = format!("build foo/1.0 -k {K1}");
        let output = dkms_through(&before, &root, &line);
        let want = format!(
            "dkms: error: limit of open files too low: {limit} (expected at least 256)\n  run: ulimit -n 1024\n"
        );
        assert_eq!((output.code, output.errors), (1, want));
        // Every user may raise the soft limit.
        let before = ["sh", "-c", "ulimit -S -n 128; exec \"$@\"", "-"];
        let output = dkms_through(&before, &root, &line);
        assert_eq!(output.code, 0, "{}{}", output.out, output.errors);
    }
}

#[test]
#[ignore = "needs root: run make unit"]
fn a_read_only_tree_is_named() {
    let root = root();
    run(&root, "add foo/1.0", 0);
    let tree = root.at("var/lib/dkms");
    Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "none"]).arg(&tree).assert().success();
    for line in ["add foo/1.0", "build foo/1.0", "install foo/1.0"] {
        let output = dkms(&root, line);
        let want = "dkms: error: ROOT/var/lib/dkms: read-only file system\n";
        assert_eq!((output.code, output.errors.as_str()), (1, want), "{line}");
    }
    Command::new("umount").arg(&tree).assert().success();
}

/// Checking whether programs can have their own mounts creates no mount point.
#[test]
#[ignore = "needs root: run make unit"]
fn a_deleted_tree_does_not_become_a_file() {
    let root = root();
    run(&root, &format!("install foo/1.0 -k {K1}"), 0);
    std::fs::remove_dir_all(root.at("var/lib/dkms")).unwrap();
    for line in ["verify", "explain foo"] {
        dkms(&root, line);
        assert!(!root.at("var/lib/dkms").is_file(), "{line}");
    }
    run(&root, &format!("autoinstall -k {K1}"), 0);
    assert!(root.exists("var/lib/dkms/foo/1.0/source"));
}
