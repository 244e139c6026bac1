//! Copies directory trees, or creates trees of hard links.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::os::durable::{self, FileError};

/// Copies the directory tree `from` to `to`, which must not exist.
///
/// Like `cp -a`, keeps modes, times, symbolic links and, if permitted, owners. `from` itself may be
/// a link to a directory, as `T/M/V/source` is. Links inside it are copied as links. File contents
/// are shared if the filesystem supports reflinks.
///
/// # Errors
/// [`FileError`] if an entry cannot be copied; the partial copy is removed. A FIFO, socket or
/// device cannot be copied, since it has no content.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<(), FileError> {
    place_tree(from, to, &copy_file)
}

/// Creates the directory tree `to` with hard links to the files of `from`.
///
/// Removing or replacing a file in one tree does not affect the other. Files that cannot be linked
/// are copied, for example if `to` is on another filesystem. Everything else is as in
/// [`copy_tree`].
///
/// # Errors
/// The same as for [`copy_tree`].
pub(crate) fn link_tree(from: &Path, to: &Path) -> Result<(), FileError> {
    place_tree(from, to, &link_file)
}

/// A function that copies or links a regular file with the given metadata.
type PlaceFile = dyn Fn(&Path, &Path, &Metadata) -> io::Result<()>;

fn place_tree(from: &Path, to: &Path, place: &PlaceFile) -> Result<(), FileError> {
    let meta = fs::metadata(from).map_err(FileError::when("read", from))?;
    refuse_copy_into_itself(from, to)?;
    fs::create_dir(to).map_err(FileError::when("create directory", to))?;
    let placed = place_entries(from, to, place).and_then(|()| finish(to, &meta));
    if placed.is_err() {
        // Report only the first failure. A later run removes what remains.
        let _ = durable::remove_tree(to);
    }
    placed
}

fn place_entries(from: &Path, to: &Path, place: &PlaceFile) -> Result<(), FileError> {
    for entry in fs::read_dir(from).map_err(FileError::when("list", from))? {
        let entry = entry.map_err(FileError::when("list", from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let failed = || FileError::when("copy", &from);
        let meta = entry.metadata().map_err(failed())?;
        let kind = meta.file_type();
        if kind.is_dir() {
            fs::create_dir(&to).map_err(FileError::when("create directory", &to))?;
            place_entries(&from, &to, place)?;
            // Last, because adding entries changes the directory's time, and its mode can forbid
            // adding them.
            finish(&to, &meta)?;
        } else if kind.is_file() {
            place(&from, &to, &meta).map_err(failed())?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&from).map_err(failed())?;
            symlink(target, &to).and_then(|()| set_metadata(&to, &meta)).map_err(failed())?;
        } else {
            let special = io::Error::new(ErrorKind::InvalidInput, "is a FIFO, socket or device");
            return Err(failed()(special));
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, meta: &Metadata) -> io::Result<()> {
    fs::copy(from, to)?;
    set_metadata(to, meta)
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
    set_metadata(dir, meta).map_err(FileError::when("set the mode and times of", dir))
}

/// Sets the owner, mode and times of `path` to those in `meta`. Does not follow links.
fn set_metadata(path: &Path, meta: &Metadata) -> io::Result<()> {
    match lchown(path, Some(meta.uid()), Some(meta.gid())) {
        // Only root can change owners. Other users own their copies, as with `cp -a`.
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

/// Fails if `to` is inside `from`, because copying would continue until the disk is full.
fn refuse_copy_into_itself(from: &Path, to: &Path) -> Result<(), FileError> {
    let parent = to.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    let real = |path: &Path| path.canonicalize().map_err(FileError::when("resolve", path));
    if real(parent)?.starts_with(real(from)?) {
        let inside =
            io::Error::new(ErrorKind::InvalidInput, "the destination is inside the source");
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

    type PlaceTree = fn(&Path, &Path) -> Result<(), FileError>;

    #[rstest]
    #[case::copied(copy_tree)]
    #[case::linked(link_tree)]
    fn keeps_modes_times_and_links(#[case] place: PlaceTree) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (source(dir.path()), dir.path().join("to"));
        place(&from, &to).unwrap();
        for path in ["post.sh", "patches", "patches/a.c", "patches/empty"] {
            let (old, new) =
                (fs::metadata(from.join(path)).unwrap(), fs::metadata(to.join(path)).unwrap());
            assert_eq!(
                (old.mode(), old.modified().unwrap()),
                (new.mode(), new.modified().unwrap())
            );
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
    #[case::linked(link_tree)]
    fn fails_at_a_fifo_and_removes_the_partial_copy(#[case] place: PlaceTree) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (source(dir.path()), dir.path().join("to"));
        mkfifo(&from.join("pipe"), Mode::S_IRWXU).unwrap();
        let error = place(&from, &to).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot copy {}: is a FIFO, socket or device", from.join("pipe").display())
        );
        assert!(!to.exists());
    }

    #[test]
    fn refuses_to_copy_a_tree_into_itself_or_over_an_existing_directory() {
        let dir = tempfile::tempdir().unwrap();
        let from = source(dir.path());
        assert!(copy_tree(&from, &from.join("patches/empty/to")).is_err());
        assert!(copy_tree(&from, dir.path()).is_err());
        assert!(from.join("post.sh").exists());
    }
}
