//! Copies whole source trees, or links their files.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::os::durable::{self, FileError};

/// Copies the tree `from` to `to`, which must not be there: modes, owners (as far as the caller
/// may), times and links are kept, as `cp -a` does. Only `from` itself may be a link that is
/// followed (`T/M/V/source` is one). File contents are shared where the filesystem can.
///
/// # Errors
/// [`FileError`] naming the entry that failed; a FIFO, socket or device is refused, since it has
/// no content to copy. What was copied until then is removed.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<(), FileError> {
    take_tree(from, to, &copy_file)
}

/// Makes `to` a second name for every file of the tree `from`: nothing is copied, and removing or
/// replacing a file on one side leaves the other's. Files that cannot have a second name there
/// (another filesystem, too many names already, not ours) are copied.
///
/// # Errors
/// As [`copy_tree`].
pub(crate) fn link_tree(from: &Path, to: &Path) -> Result<(), FileError> {
    take_tree(from, to, &link_file)
}

/// How one regular file gets to its new place.
type TakeFile = dyn Fn(&Path, &Path, &Metadata) -> io::Result<()>;

fn take_tree(from: &Path, to: &Path, take: &TakeFile) -> Result<(), FileError> {
    let meta = fs::metadata(from).map_err(FileError::when("read", from))?;
    refuse_copy_into_itself(from, to)?;
    fs::create_dir(to).map_err(FileError::when("create directory", to))?;
    let taken = take_entries(from, to, take).and_then(|()| finish(to, &meta));
    if taken.is_err() {
        // The first failure is the one to report; what cannot be removed now is swept later.
        let _ = durable::remove_tree(to);
    }
    taken
}

fn take_entries(from: &Path, to: &Path, take: &TakeFile) -> Result<(), FileError> {
    for entry in fs::read_dir(from).map_err(FileError::when("list", from))? {
        let entry = entry.map_err(FileError::when("list", from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let failed = || FileError::when("copy", &from);
        let meta = entry.metadata().map_err(failed())?;
        let kind = meta.file_type();
        if kind.is_dir() {
            fs::create_dir(&to).map_err(FileError::when("create directory", &to))?;
            take_entries(&from, &to, take)?;
            // Last: filling a directory changes its time, and its mode may forbid filling it.
            finish(&to, &meta)?;
        } else if kind.is_file() {
            take(&from, &to, &meta).map_err(failed())?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&from).map_err(failed())?;
            symlink(target, &to).and_then(|()| keep_marks(&to, &meta)).map_err(failed())?;
        } else {
            let special = io::Error::new(ErrorKind::InvalidInput, "a FIFO, socket or device");
            return Err(failed()(special));
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, meta: &Metadata) -> io::Result<()> {
    fs::copy(from, to)?;
    keep_marks(to, meta)
}

fn link_file(from: &Path, to: &Path, meta: &Metadata) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error)
            if matches!(
                error.raw_os_error().map(Errno::from_raw),
                Some(Errno::EXDEV | Errno::EPERM | Errno::EMLINK | Errno::EOPNOTSUPP)
            ) =>
        {
            copy_file(from, to, meta)
        }
        other => other,
    }
}

fn finish(dir: &Path, meta: &Metadata) -> Result<(), FileError> {
    keep_marks(dir, meta).map_err(FileError::when("set mode and time of", dir))
}

/// Gives `path` the owner, mode and times in `meta`, without following a link.
fn keep_marks(path: &Path, meta: &Metadata) -> io::Result<()> {
    match lchown(path, Some(meta.uid()), Some(meta.gid())) {
        // Only root may give files away; others get a copy of their own, as from `cp -a`.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
        other => other?,
    }
    if !meta.is_symlink() {
        fs::set_permissions(path, meta.permissions())?;
    }
    let accessed = TimeSpec::new(meta.atime(), meta.atime_nsec());
    let modified = TimeSpec::new(meta.mtime(), meta.mtime_nsec());
    utimensat(AT_FDCWD, path, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

/// A copy inside its own original would grow until the disk is full.
fn refuse_copy_into_itself(from: &Path, to: &Path) -> Result<(), FileError> {
    let above = to.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    let real = |path: &Path| path.canonicalize().map_err(FileError::when("find", path));
    if real(above)?.starts_with(real(from)?) {
        let inside = io::Error::new(ErrorKind::InvalidInput, "it would hold its own copy");
        return Err(FileError::when("copy", from)(inside));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use rstest::rstest;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    /// A small source with everything that must survive: modes, times, links, an empty directory.
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

    type TakeTree = fn(&Path, &Path) -> Result<(), FileError>;

    #[rstest]
    #[case::copied(copy_tree)]
    #[case::linked(link_tree)]
    fn keeps_modes_times_and_links(#[case] take: TakeTree) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (source(dir.path()), dir.path().join("to"));
        take(&from, &to).unwrap();
        for path in ["post.sh", "patches", "patches/a.c", "patches/empty"] {
            let (was, is) =
                (fs::metadata(from.join(path)).unwrap(), fs::metadata(to.join(path)).unwrap());
            assert_eq!((was.mode(), was.modified().unwrap()), (is.mode(), is.modified().unwrap()));
        }
        assert_eq!(fs::read(to.join("patches/a.c")).unwrap(), b"int a;\n");
        assert_eq!(fs::read_link(to.join("patches/link")).unwrap(), Path::new("../nowhere"));
    }

    #[test]
    fn a_linked_tree_shares_files_until_one_side_replaces_them() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (source(dir.path()), dir.path().join("to"));
        link_tree(&from, &to).unwrap();
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(from.join("post.sh")), inode(to.join("post.sh")));
        durable::write(&from.join("post.sh"), b"new").unwrap();
        assert_eq!(fs::read(to.join("post.sh")).unwrap(), b"#!/bin/sh\n");
    }

    #[test]
    fn follows_only_the_link_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let (from, link) = (source(dir.path()), dir.path().join("source"));
        symlink(&from, &link).unwrap();
        copy_tree(&link, &dir.path().join("to")).unwrap();
        assert!(dir.path().join("to/patches/empty").is_dir());
    }

    #[rstest]
    #[case::copied(copy_tree)]
    #[case::linked(link_tree)]
    fn refuses_what_has_no_content_and_leaves_nothing(#[case] take: TakeTree) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (source(dir.path()), dir.path().join("to"));
        mkfifo(&from.join("pipe"), Mode::S_IRWXU).unwrap();
        let error = take(&from, &to).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot copy {}: a FIFO, socket or device", from.join("pipe").display())
        );
        assert!(!to.exists());
    }

    #[test]
    fn refuses_to_copy_into_itself_or_over_something() {
        let dir = tempfile::tempdir().unwrap();
        let from = source(dir.path());
        assert!(copy_tree(&from, &from.join("patches/empty/to")).is_err());
        assert!(copy_tree(&from, dir.path()).is_err());
        assert!(from.join("post.sh").exists());
    }
}
