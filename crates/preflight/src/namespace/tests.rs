use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread;

use rstest::rstest;
use tempfile::TempDir;

use super::*;

/// Runs `test` in a thread with mounts of its own, on a directory with a file system in memory. In
/// a shared namespace, mounts made by other processes would disturb the test.
fn with_own_mounts(test: impl FnOnce(&Path) + Send) {
    let place = TempDir::new().unwrap();
    let run = || {
        enter().unwrap();
        mount_memory(place.path(), 1 << 20).unwrap();
        test(place.path());
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap());
}

fn make(dir: &Path) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    dir.to_owned()
}

/// Returns the kind of the error if no file can be created in `dir`, otherwise `None`.
fn refusal(dir: &Path) -> Option<ErrorKind> {
    fs::write(dir.join("new"), "").err().map(|error| error.kind())
}

const READ_ONLY: Option<ErrorKind> = Some(ErrorKind::ReadOnlyFilesystem);

#[test]
#[ignore = "needs root: run make unit"]
fn only_the_given_mounts_stay_writable() {
    with_own_mounts(|top| {
        let writable = make(&top.join("writable"));
        bind(&writable, &writable).unwrap();
        let names: [&[u8]; 3] = [b"plain", b"a b\t\n\\040", b"\xff"];
        let mounts = names.map(|name| make(&top.join(std::ffi::OsStr::from_bytes(name))));
        mounts.iter().for_each(|dir| mount_memory(dir, 1 << 20).unwrap());
        make_read_only(&[&writable]).unwrap();
        for dir in mounts.iter().map(PathBuf::as_path).chain([top]) {
            assert_eq!(refusal(dir), READ_ONLY, "{}", dir.display());
        }
        assert_eq!(refusal(&writable), None);
        verify_read_only(&[top, "/".as_ref(), Path::new("/no/such/directory")]).unwrap();
        let why = verify_read_only(&[top, &writable]).unwrap_err().to_string();
        assert_eq!(why, format!("{}: cannot be made read-only", writable.display()));
    });
}

/// A bind mount has the flags of the mount that contains its origin.
#[test]
#[ignore = "needs root: run make unit"]
fn a_bound_directory_is_as_writable_as_its_origin() {
    with_own_mounts(|top| {
        let [writable, inner] = ["writable", "writable/inner"].map(|dir| make(&top.join(dir)));
        let [origin, below] = ["origin", "origin/below"].map(|dir| make(&top.join(dir)));
        mount_memory(&below, 1 << 20).unwrap();
        bind(&writable, &writable).unwrap();
        make_read_only(&[&writable]).unwrap();
        bind(&origin, &inner).unwrap();
        assert_eq!(refusal(&inner), READ_ONLY);
        assert_eq!(refusal(&inner.join("below")), READ_ONLY);
        bind(&writable, &origin).unwrap();
        assert_eq!(refusal(&origin), None);
        assert_eq!(refusal(&origin.join("inner")), READ_ONLY);
    });
}

#[test]
#[ignore = "needs root: run make unit"]
fn stacked_and_hidden_mounts_are_no_obstacle() {
    with_own_mounts(|top| {
        let [stack, cover, hidden] =
            ["stack", "cover", "cover/hidden"].map(|dir| make(&top.join(dir)));
        for dir in [&stack, &stack, &hidden, &cover] {
            mount_memory(dir, 1 << 20).unwrap();
        }
        fs::write(&hidden, "not even a directory").unwrap();
        make_read_only(&[]).unwrap();
        assert_eq!([&stack, &cover].map(|dir| refusal(dir)), [READ_ONLY; 2]);
        umount2(&cover, MntFlags::empty()).unwrap();
        assert_eq!(refusal(&cover), READ_ONLY);
    });
}

#[test]
#[ignore = "needs root: run make unit"]
fn other_options_of_a_mount_are_kept() {
    with_own_mounts(|top| {
        let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
        mount(Some("tmpfs"), top, Some("tmpfs"), flags, NONE).unwrap();
        make_read_only(&[]).unwrap();
        let mounts = mount_table::read(Path::new(MOUNTS)).unwrap();
        let mount = mounts.iter().rfind(|mount| mount.dir == top).unwrap();
        assert_eq!(super::flags(&mount.options), flags);
        assert_eq!(refusal(top), READ_ONLY);
    });
}

/// With systemd, all mounts are shared.
#[test]
#[ignore = "needs root: run make unit"]
fn shared_mounts_outside_do_not_change() {
    with_own_mounts(|top| {
        let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
        mount(NONE, "/", NONE, shared, NONE).unwrap();
        let inner = || {
            enter().unwrap();
            mount_memory(top, 1 << 20).unwrap();
            fs::write(top.join("inner"), "").unwrap();
            make_read_only(&[]).unwrap();
        };
        thread::scope(|scope| scope.spawn(inner).join().unwrap());
        assert!(!top.join("inner").exists());
        assert_eq!(refusal(top), None);
    });
}

/// A user's FUSE file system refuses other users, root included. The program that serves it may
/// have ended.
#[rstest]
#[ignore = "needs root: run make unit"]
fn fuse_mounts_that_refuse_root_are_no_obstacle(#[values(true, false)] is_served: bool) {
    with_own_mounts(|top| {
        let dir = make(&top.join("fuse"));
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=1,group_id=1", device.as_raw_fd());
        mount(Some("fuse"), &dir, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let device = is_served.then_some(device);
        make_read_only(&[]).unwrap();
        assert!(fs::write(dir.join("new"), "").is_err());
        assert_eq!(refusal(top), READ_ONLY);
        drop(device);
    });
}

/// Access to an autofs mount would mount another file system, or wait for that.
#[test]
#[ignore = "needs root: run make unit"]
fn autofs_is_not_touched() {
    with_own_mounts(|top| {
        let dir = make(&top.join("autofs"));
        let (_requests, pipe) = io::pipe().unwrap();
        let group = nix::unistd::getpgrp();
        let options = format!("fd={},pgrp={group},minproto=5,maxproto=5,direct", pipe.as_raw_fd());
        mount(Some("systemd-1"), &dir, Some("autofs"), MsFlags::empty(), Some(options.as_str()))
            .unwrap();
        make_read_only(&[]).unwrap();
        assert_eq!(refusal(top), READ_ONLY);
    });
}
