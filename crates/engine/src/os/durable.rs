//! Changes files atomically and durably: after a crash, a file has either its old or its new
//! content.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

/// The file name prefix of unfinished files.
///
/// The dot hides the files from dkms's globs. Their names never end in `.ko*`, so depmod does not
/// mistake them for modules.
pub(crate) const UNFINISHED: &str = ".tmp-";

/// A failed operation on a file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}", .path.display())]
pub struct FileError {
    /// The failed operation as a verb, such as "write" or "remove".
    pub doing: &'static str,
    /// The file or directory on which the operation failed.
    pub path: PathBuf,
    /// The underlying error, usually from the operating system.
    pub source: io::Error,
}

impl FileError {
    /// Returns a function to pass to `map_err`, as in `.map_err(FileError::when("read", path))`.
    pub fn when(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { doing, path: path.to_owned(), source }
    }

    /// Returns true if the disk was full or the user's quota was exceeded. Every further module
    /// would then fail for the same reason.
    #[must_use]
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(self.source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }

    /// Returns true if the operation failed because the file did not exist.
    #[must_use]
    pub(crate) fn is_missing(&self) -> bool {
        self.source.kind() == ErrorKind::NotFound
    }
}

/// Returns the free space in bytes on the filesystem that contains `path`, or `None` if it cannot
/// be determined.
#[must_use]
pub fn free_space(path: &Path) -> Option<u64> {
    let system = statvfs(path).ok()?;
    // The types of these numbers depend on the architecture.
    #[allow(clippy::useless_conversion, reason = "on 64 bits both are u64 already")]
    Some(u64::from(system.blocks_available()) * u64::from(system.fragment_size()))
}

/// Returns true if the filesystem that contains `path` is read-only.
#[must_use]
pub fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|system| system.flags().contains(FsFlags::ST_RDONLY))
}

/// The parts of a new file that are on disk when the function that writes it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The content and the name.
    Full,
    /// The content, but not the name. After a power cut, the path leads to the old or the new file.
    /// The caller syncs the directory later, with `os::unsynced` for example.
    Content,
    /// Syncs nothing. After a power cut, the file may be missing or empty. Meant for files that are
    /// useless after a power cut, or that the caller syncs later.
    None,
}

/// Creates or replaces the file `path` with the content `bytes` and mode 0644. Syncs the file and
/// its directory.
///
/// # Errors
/// [`FileError`] if the file cannot be written (`path` is then unchanged, and no temporary file
/// remains), or if its directory cannot be synced (`path` is then the new file).
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_with_mode(path, bytes, 0o644, Durability::Full)
}

/// Creates or replaces the file `path` like [`write()`], but syncs only what `durability` says.
///
/// # Errors
/// The same as for [`write()`].
pub fn write_with(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), FileError> {
    write_with_mode(path, bytes, 0o644, durability)
}

/// Creates or replaces the executable script `path` with the content `text` and mode 0755.
///
/// # Errors
/// The same as for [`write()`].
pub(crate) fn write_program(path: &Path, text: &str) -> Result<(), FileError> {
    write_with_mode(path, text.as_bytes(), 0o755, Durability::Full)
}

fn write_with_mode(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> Result<(), FileError> {
    let failed = || FileError::when("write", path);
    let mut unfinished =
        tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(parent(path)).map_err(failed())?;
    unfinished.write_all(bytes).map_err(failed())?;
    // The mode does not depend on the umask, because every user must be able to read the trees with
    // `dkms status`.
    unfinished.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed())?;
    if durability != Durability::None {
        unfinished.as_file().sync_all().map_err(failed())?;
    }
    unfinished.persist(path).map_err(|error| failed()(error.error))?;
    if durability == Durability::Full { sync_dir(parent(path)) } else { Ok(()) }
}

/// Creates the symbolic link `path` to `target`, replacing an existing file or link. Syncs the
/// directory.
///
/// # Errors
/// The same as for [`write()`].
pub(crate) fn replace_link(path: &Path, target: &Path) -> Result<(), FileError> {
    replace_link_unsynced(path, target)?;
    sync_dir(parent(path))
}

/// Creates the symbolic link `path` like [`replace_link`], but does not sync the directory.
///
/// # Errors
/// The same as for [`write()`].
pub(crate) fn replace_link_unsynced(path: &Path, target: &Path) -> Result<(), FileError> {
    let failed = || FileError::when("create link", path);
    let unfinished = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .make_in(parent(path), |free| symlink(target, free))
        .map_err(failed())?;
    unfinished.into_temp_path().persist(path).map_err(|error| failed()(error.error))
}

/// Syncs the directory `path`, so that earlier renames in it survive a crash.
///
/// # Errors
/// [`FileError`] if the directory cannot be opened or synced.
pub(crate) fn sync_dir(path: &Path) -> Result<(), FileError> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    match synced {
        // Some network and FUSE filesystems do not support fsync for directories.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        other => other.map_err(FileError::when("sync", path)),
    }
}

/// Creates the directory `path` and its missing parents. An existing directory is not an error.
///
/// # Errors
/// [`FileError`] if a directory cannot be created.
pub fn create_dirs(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(FileError::when("create directory", path))
}

/// Removes the file or link `path` if it exists. Returns true if it existed.
///
/// # Errors
/// [`FileError`] if `path` exists but cannot be removed.
pub fn remove_file_if_there(path: &Path) -> Result<bool, FileError> {
    if_there(fs::remove_file(path)).map_err(FileError::when("remove", path))
}

/// Removes the file, link or directory tree `path` if it exists. Returns true if it existed.
///
/// Links are not followed.
///
/// # Errors
/// [`FileError`] if an entry cannot be removed. Other entries may already have been removed.
pub fn remove_tree(path: &Path) -> Result<bool, FileError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    if_there(removed).map_err(FileError::when("remove", path))
}

/// Removes `dir` if it is empty, and then each parent that is now empty. Stops at `stop`, which is
/// not removed.
///
/// A directory that does not exist counts as removed.
///
/// # Errors
/// [`FileError`] if `dir` is neither `stop` nor below `stop`, or if an empty directory cannot be
/// removed.
pub(crate) fn remove_empty_dirs_up_to(dir: &Path, stop: &Path) -> Result<(), FileError> {
    let below = dir.strip_prefix(stop).ok().filter(|path| {
        path.components().all(|component| matches!(component, Component::Normal(_)))
    });
    if below.is_none() {
        let reason = format!("not below {}", stop.display());
        let outside = io::Error::new(ErrorKind::InvalidInput, reason);
        return Err(FileError::when("remove", dir)(outside));
    }
    for dir in dir.ancestors().take_while(|dir| *dir != stop) {
        match fs::remove_dir(dir) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            other => if_there(other).map_err(FileError::when("remove", dir))?,
        };
    }
    Ok(())
}

/// Removes leftovers of interrupted changes: the entries of `dir` whose names start with
/// [`UNFINISHED`].
///
/// The caller must hold the lock. Otherwise, files that another process is still writing could be
/// removed.
///
/// # Errors
/// [`FileError`] if `dir` exists but cannot be listed, or if an entry cannot be removed.
pub(crate) fn remove_unfinished(dir: &Path) -> Result<(), FileError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(FileError::when("list", dir))?,
    };
    for entry in entries {
        let entry = entry.map_err(FileError::when("list", dir))?;
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Converts the result of removing a file: true if it succeeded, false if the file did not exist.
fn if_there(removed: io::Result<()>) -> io::Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the directory that contains `path`, or `.` for a bare file name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_files_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(names(dir.path()), ["record"]);
    }

    #[test]
    fn a_failed_write_changes_nothing_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = write(&path, b"x").unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot write {}: ", path.display())));
        assert_eq!(names(dir.path()), ["taken"]);
    }

    #[test]
    fn replaces_links() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel-x");
        replace_link(&path, Path::new("1/a")).unwrap();
        replace_link(&path, Path::new("2/a")).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("2/a"));
        assert_eq!(names(dir.path()), ["kernel-x"]);
    }

    #[test]
    fn removes_trees_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, gone) = (dir.path().join("kept"), dir.path().join("gone"));
        fs::create_dir_all(kept.join("inside")).unwrap();
        fs::create_dir(&gone).unwrap();
        symlink(&kept, gone.join("link")).unwrap();
        assert!(remove_tree(&gone).unwrap());
        assert!(!remove_tree(&gone).unwrap());
        symlink(&kept, &gone).unwrap();
        assert!(remove_tree(&gone).unwrap());
        assert!(kept.join("inside").is_dir());
    }

    #[rstest]
    #[case::all_empty(&[], "top")]
    #[case::stops_at_a_directory_with_content(&["top/a/file"], "top/a")]
    fn removes_empty_directories_upwards(#[case] files: &[&str], #[case] left: &str) {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("top/a/b/c")).unwrap();
        for file in files {
            fs::write(at(file), "").unwrap();
        }
        // The innermost directory is missing, as after an interrupted removal.
        remove_empty_dirs_up_to(&at("top/a/b/c/d"), &at("top")).unwrap();
        assert!(at(left).is_dir() && !at("top/a/b").exists());
    }

    #[rstest]
    #[case::elsewhere("/etc/x")]
    #[case::outside_through_dots("/stop/a/../../etc")]
    fn removes_no_directory_outside_the_given_parent(#[case] dir: &str) {
        let error = remove_empty_dirs_up_to(Path::new(dir), Path::new("/stop")).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn removes_only_unfinished_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".tmp-abc")).unwrap();
        fs::write(dir.path().join(".tmp-def"), "").unwrap();
        fs::write(dir.path().join("kept"), "").unwrap();
        remove_unfinished(dir.path()).unwrap();
        remove_unfinished(&dir.path().join("missing")).unwrap();
        assert_eq!(names(dir.path()), ["kept"]);
    }

    #[rstest]
    #[case::full(Durability::Full)]
    #[case::content(Durability::Content)]
    #[case::none(Durability::None)]
    fn every_durability_writes_the_same_file(#[case] durability: Durability) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        write_with(&path, b"one", durability).unwrap();
        write_with(&path, b"two", durability).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["record"]);
    }

    #[test]
    fn recognises_a_full_disk() {
        let error = fs::write("/dev/full", "x").map_err(FileError::when("write", Path::new("x")));
        assert!(error.unwrap_err().is_disk_full());
    }
}
