//! Tests of sources that belong to another user, contain special files, or cannot be copied.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use assert_cmd::Command;
use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};
use rstest::rstest;
use testroot::TestRoot;

use crate::fixture::{K1, dkms, dkms_obeying_modes, root, run};

/// Returns a root with the source of `foo/1.0` in `srv/checkout`. The source belongs to another
/// user and is writable by all users.
fn foreign() -> (TestRoot, String) {
    let root = root();
    root.dir("srv");
    fs::rename(root.at("usr/src/foo-1.0"), root.at("srv/checkout")).unwrap();
    root.executable("srv/checkout/tool", "#!/bin/sh\n");
    let path = root.at("srv/checkout").display().to_string();
    if Uid::effective().is_root() {
        Command::new("chown").args(["-R", "1234:1234", &path]).assert().success();
    }
    Command::new("chmod").args(["-R", "go+w", &path]).assert().success();
    fs::set_permissions(root.at("srv/checkout/tool"), Permissions::from_mode(0o6777)).unwrap();
    (root, path)
}

/// Asserts that only `user` can change the files of a tree.
#[track_caller]
fn assert_owned_by(user: &str, dir: &Path) {
    let open =
        ["!", "-uid", user, "-o", "!", "-gid", user, "-o", "!", "-type", "l", "-perm", "/6022"];
    Command::new("find").arg(dir).args(open).assert().success().stdout("");
}

#[rstest]
#[case::added("add PATH", false)]
#[case::built("build PATH -k KERNEL", false)]
#[case::from_an_archive("ldtarball PATH", true)]
fn no_other_user_can_change_an_imported_source(#[case] line: &str, #[case] packed: bool) {
    let (root, mut path) = foreign();
    if packed {
        let archive = root.at("foo.tar").display().to_string();
        let words = ["-C", &path, "-cf", &archive, "."];
        Command::new("tar").args(words).assert().success();
        path = archive;
    }
    run(&root, &line.replace("KERNEL", K1).replace("PATH", &path), 0);
    assert_owned_by(&Uid::effective().to_string(), &root.at("usr/src/foo-1.0"));
    let mode = fs::metadata(root.at("usr/src/foo-1.0/tool")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755);
    if Uid::effective().is_root() {
        assert_eq!(fs::metadata(root.at("srv/checkout/tool")).unwrap().uid(), 1234);
    }
}

/// An archive sets the mode of its top directory, and its dkms.conf is run as root.
#[rstest]
#[case::plain("SRC")]
#[case::of_dkms("SRC/..")]
fn no_other_user_can_enter_an_unpacked_archive(#[case] top: &str) {
    let (root, path) = foreign();
    root.dir("tmp");
    let tmp = root.at("tmp").display().to_string();
    root.write("etc/dkms/framework.conf", format!("tmp_location={tmp}\n"));
    let conf = root.read("srv/checkout/dkms.conf");
    root.write("srv/checkout/dkms.conf", format!("{conf}stat -c %a {tmp}/dkms.* >>{tmp}/modes\n"));
    fs::rename(&path, root.at("srv/dkms_source_tree")).unwrap();
    root.dir("srv/dkms_main_tree");
    fs::set_permissions(root.at("srv"), Permissions::from_mode(0o777)).unwrap();
    let top = top.replace("SRC", &root.at("srv/dkms_source_tree").display().to_string());
    let archive = root.at("foo.tar").display().to_string();
    Command::new("tar").args(["-C", &top, "-cf", &archive, "."]).assert().success();
    run(&root, &format!("ldtarball {archive}"), 0);
    let modes = root.read("tmp/modes");
    assert!(modes.lines().all(|mode| mode == "700") && !modes.is_empty(), "{modes}");
    assert_eq!(fs::read_dir(root.at("tmp")).unwrap().count(), 1, "only `modes` is left");
}

#[rstest]
#[case::fifo("pipe", "FIFO")]
#[case::socket(".git/fsmonitor--daemon.ipc", "socket")]
fn special_files_are_skipped(#[case] name: &str, #[case] kind: &str) {
    let (root, path) = foreign();
    let special = Path::new(&path).join(name);
    fs::create_dir_all(special.parent().unwrap()).unwrap();
    let _listener = match kind {
        "FIFO" => mkfifo(&special, Mode::S_IRWXU).map(|()| None).unwrap(),
        _ => Some(UnixListener::bind(&special).unwrap()),
    };
    let note = format!("note: foo/1.0: ROOT/srv/checkout/{name}: skipped: {kind}\n");
    let output = run(&root, &format!("install {path} -k {K1}"), 0);
    assert!(output.contains(&note), "{output}");
    assert!(!root.exists(format!("usr/src/foo-1.0/{name}")));
    assert_eq!(run(&root, "status", 0), format!("foo/1.0, {K1}, x86_64: installed\n"));
    run(&root, "remove foo/1.0 --all", 0);
}

#[rstest]
#[case::file("foo.c", "add")]
#[case::directory("secret", "add")]
#[case::before_a_build("foo.c", "install")]
fn a_source_that_cannot_be_copied_changes_nothing(#[case] closed: &str, #[case] command: &str) {
    let (root, path) = foreign();
    if closed == "secret" {
        root.dir("srv/checkout/secret");
    }
    root.write("usr/src/foo-1.0/earlier", "");
    fs::set_permissions(root.at("srv/checkout").join(closed), Permissions::from_mode(0o000))
        .unwrap();
    let listing = || {
        let all = root.listing("");
        let own = |line: &&str| {
            !line.contains("/.cache") && !line.contains("/.bin") && !line.contains("/.lock")
        };
        all.lines().filter(own).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = listing();
    let output = dkms_obeying_modes(&root, &format!("{command} {path} -k {K1}"));
    assert_eq!(output.code, 1, "{}{}", output.out, output.errors);
    assert!(output.errors.contains("Permission denied"), "{}", output.errors);
    assert!(!output.out.contains("added foo"), "{}", output.out);
    assert_eq!(listing(), before);
    assert_eq!(run(&root, "status", 0), "");
    // The next command is not affected.
    let mode = Permissions::from_mode(0o755);
    fs::set_permissions(root.at("srv/checkout").join(closed), mode).unwrap();
    assert_eq!(dkms(&root, &format!("{command} {path} -k {K1}")).code, 0);
}

#[test]
#[ignore = "needs root: run make unit"]
fn a_build_of_another_user_belongs_to_that_user() {
    let (root, _) = foreign();
    fs::rename(root.at("srv/checkout"), root.at("usr/src/foo-1.0")).unwrap();
    // Everything below the root belongs to one user, except the source, which belongs to another.
    let above = root.path().parent().unwrap();
    let given = above.to_str().unwrap();
    Command::new("chown").args(["-R", "4321:4321", given]).assert().success();
    let source = root.at("usr/src/foo-1.0").display().to_string();
    Command::new("chown").args(["-R", "1234:1234", &source]).assert().success();
    Command::new("setpriv")
        .args(["--reuid=4321", "--regid=4321", "--clear-groups"])
        .arg(assert_cmd::cargo::cargo_bin("dkms"))
        .env("PATH", root.search_path())
        .arg("--root")
        .arg(root.path())
        .args(["build", "foo/1.0", "-k", K1])
        .assert()
        .success();
    assert_owned_by("4321", &root.at("var/lib/dkms"));
    assert_eq!(fs::metadata(&source).unwrap().uid(), 1234);
}
