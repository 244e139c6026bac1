//! Tests of copying trees.

use super::*;
use nix::fcntl::{RenameFlags, renameat2};
use nix::unistd::mkfifo;
use rstest::rstest;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Creates a source tree with unusual modes and times, a link and an empty directory.
fn source(dir: &Path) -> PathBuf {
    let from = dir.join("from");
    fs::create_dir_all(from.join("patches/empty")).unwrap();
    fs::write(from.join("post.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(from.join("post.sh"), Permissions::from_mode(0o750)).unwrap();
    fs::write(from.join("patches/a.c"), "int a;\n").unwrap();
    symlink("../nowhere", from.join("patches/link")).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    fs::File::open(from.join("patches/a.c")).unwrap().set_modified(old).unwrap();
    fs::File::open(from.join("patches")).unwrap().set_modified(old).unwrap();
    fs::set_permissions(from.join("patches"), Permissions::from_mode(0o711)).unwrap();
    from
}

type PlaceTree = fn(&Path, &Path) -> Result<Copied, FileError>;

fn linked(from: &Path, to: &Path) -> Result<Copied, FileError> {
    link_tree(from, to).map(|()| Copied::default())
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[rstest]
#[case::copied(copy_tree)]
#[case::linked(linked)]
#[case::taken(take_tree)]
#[case::kept(keep_tree)]
fn keeps_modes_times_and_links(#[case] place: PlaceTree) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (source(dir.path()), dir.path().join("to"));
    place(&from, &to).unwrap();
    for path in ["post.sh", "patches", "patches/a.c", "patches/empty"] {
        let (old, new) =
            (fs::metadata(from.join(path)).unwrap(), fs::metadata(to.join(path)).unwrap());
        assert_eq!((old.mode(), old.modified().unwrap()), (new.mode(), new.modified().unwrap()));
    }
    assert_eq!(fs::read(to.join("patches/a.c")).unwrap(), b"int a;\n");
    assert_eq!(fs::read_link(to.join("patches/link")).unwrap(), Path::new("../nowhere"));
}

#[test]
fn linked_trees_share_files_until_a_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (source(dir.path()), dir.path().join("to"));
    link_tree(&from, &to).unwrap();
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(from.join("post.sh")), inode(to.join("post.sh")));
    durable::write(&from.join("post.sh"), b"new").unwrap();
    assert_eq!(fs::read(to.join("post.sh")).unwrap(), b"#!/bin/sh\n");
}

#[test]
fn copies_a_tree_given_as_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (from, link) = (source(dir.path()), dir.path().join("source"));
    symlink(&from, &link).unwrap();
    copy_tree(&link, &dir.path().join("to")).unwrap();
    assert!(dir.path().join("to/patches/empty").is_dir());
}

#[rstest]
#[case::copied(copy_tree)]
#[case::taken(take_tree)]
#[case::kept(keep_tree)]
fn leaves_out_special_files(#[case] place: PlaceTree) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (source(dir.path()), dir.path().join("to"));
    mkfifo(&from.join("pipe"), Mode::S_IRWXU).unwrap();
    let _listener = UnixListener::bind(from.join("patches/socket")).unwrap();
    let note = place(&from, &to).unwrap().note().unwrap();
    let socket = from.join("patches/socket");
    let expected = format!("{}: skipped: socket", socket.display());
    assert_eq!(note, format!("{expected} (and 1 other special file)"));
    assert!(!to.join("pipe").exists() && !to.join("patches/socket").exists());
    assert!(to.join("post.sh").exists() && to.join("patches/a.c").exists());
}

#[rstest]
#[case::taken(take_tree)]
#[case::kept(keep_tree)]
fn only_root_can_change_a_taken_tree(#[case] place: PlaceTree) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (source(dir.path()), dir.path().join("to"));
    let modes = [
        ("post.sh", 0o4777, 0o755),
        ("patches", 0o2775, 0o755),
        ("patches/a.c", 0o664, 0o644),
        ("patches/empty", 0o1777, 0o1755),
    ];
    let is_root = geteuid().is_root();
    if is_root {
        for path in ["", "post.sh", "patches", "patches/a.c"] {
            chown(from.join(path), Some(1234), Some(1234)).unwrap();
        }
        std::os::unix::fs::lchown(from.join("patches/link"), Some(1234), None).unwrap();
    }
    modes.iter().for_each(|(path, old, _)| set_mode(&from.join(path), *old));
    let copied = place(&from, &to).unwrap();
    for (path, old, new) in modes {
        assert_eq!((mode(&from.join(path)), mode(&to.join(path))), (old, new), "{path}");
    }
    for path in ["", "post.sh", "patches", "patches/link", "patches/a.c", "patches/empty"] {
        assert_eq!(fs::symlink_metadata(to.join(path)).unwrap().uid(), geteuid().as_raw());
    }
    assert_eq!(copied.open_to_others, is_root.then_some(from.clone()));
    // The original is not changed, not even through a hard link.
    if is_root {
        assert_eq!(fs::metadata(from.join("post.sh")).unwrap().uid(), 1234);
    }
}

#[rstest]
#[case::unusual_but_safe(0o500, Some(0o500))]
#[case::writable_by_others(0o646, None)]
fn keeps_links_only_to_files_that_no_other_user_can_change(
    #[case] before: u32,
    #[case] shared: Option<u32>,
) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (source(dir.path()), dir.path().join("to"));
    set_mode(&from.join("post.sh"), before);
    keep_tree(&from, &to).unwrap();
    let inode = |path: &Path| fs::metadata(path.join("post.sh")).unwrap().ino();
    assert_eq!(inode(&from) == inode(&to), shared.is_some());
    assert_eq!(mode(&to.join("post.sh")), shared.unwrap_or(0o644));
}

#[test]
fn a_file_replaced_during_the_copy_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (source(dir.path()), dir.path().join("to"));
    fs::create_dir(&to).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    let place = |path: &Path| Place { fd: open_dir(AT_FDCWD, path).unwrap(), path: path.into() };
    let (from, to) = (place(&from), place(&to));
    let name = OsStr::new("post.sh");
    let stat = from.stat(name).unwrap();
    let path = from.path.join(name);
    let with_link: &dyn Fn() = &|| symlink("../secret", &path).unwrap();
    let with_fifo: &dyn Fn() = &|| mkfifo(&path, Mode::S_IRWXU).unwrap();
    for replace in [with_link, with_fifo] {
        fs::remove_file(&path).unwrap();
        replace();
        for links in [false, true] {
            let manner = Manner { links, taken: true };
            let copying = Copying { manner, user: geteuid(), copied: Copied::default() };
            let error = copying.file(&from, &to, name, &stat).unwrap_err();
            assert!(error.to_string().contains("replaced while being copied"), "{error}");
            assert!(to.names().unwrap().is_empty());
        }
    }
    symlink("patches", from.path.join("dir")).unwrap();
    assert!(
        open_dir(&from.fd, "dir").unwrap_err().to_string().contains("replaced while being copied")
    );
}

/// Repeatedly swaps an entry for a link while the tree is copied.
#[rstest]
#[case::file("post.sh", "../secret/key")]
#[case::directory("patches", "../secret")]
fn a_racing_swap_is_never_followed(#[case] name: &str, #[case] target: &str) {
    let dir = tempfile::tempdir().unwrap();
    let from = source(dir.path());
    fs::create_dir(dir.path().join("secret")).unwrap();
    fs::write(dir.path().join("secret/key"), "secret").unwrap();
    let (place, link) = (from.join(name), dir.path().join("link"));
    symlink(target, &link).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let swap = RenameFlags::RENAME_EXCHANGE;
                renameat2(AT_FDCWD, &link, AT_FDCWD, &place, swap).unwrap();
            }
        });
        let copied_secret = (0..100).find(|number| {
            let to = dir.path().join(number.to_string());
            let copy = to.join(name);
            take_tree(&from, &to).is_ok()
                && !copy.is_symlink()
                && (copy.join("key").exists() || fs::read(&copy).is_ok_and(|it| it == b"secret"))
        });
        done.store(true, Ordering::Relaxed);
        assert_eq!(copied_secret, None);
    });
}

#[test]
fn finds_directories_that_other_users_can_change() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("a/b/source");
    fs::create_dir_all(&source).unwrap();
    let open = || dir_open_to_others(&source, dir.path());
    assert_eq!(open(), None);
    set_mode(&dir.path().join("a"), 0o1777);
    assert_eq!(open(), None);
    set_mode(&dir.path().join("a/b"), 0o777);
    assert_eq!(open(), geteuid().is_root().then_some(dir.path().join("a/b")));
}

#[test]
fn refuses_to_copy_a_tree_into_itself_or_over_an_existing_directory() {
    let dir = tempfile::tempdir().unwrap();
    let from = source(dir.path());
    assert!(copy_tree(&from, &from.join("patches/empty/to")).is_err());
    assert!(copy_tree(&from, dir.path()).is_err());
    assert!(from.join("post.sh").exists());
}
