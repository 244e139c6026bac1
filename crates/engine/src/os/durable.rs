//! Changes files so that a crash leaves them old or new, never in between.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// How the names of unfinished files start. The dot hides them from dkms's globs, and no name
/// made with it ends in `.ko*`, which depmod would take for a module.
pub(crate) const UNFINISHED: &str = ".tmp-";

/// A file that could not be read or changed: what was tried, where, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}", .path.display())]
pub struct FileError {
    /// What was tried, as a verb: "write", "remove".
    pub doing: &'static str,
    /// The file it was tried on.
    pub path: PathBuf,
    /// The error of the system.
    pub source: io::Error,
}

impl FileError {
    /// Ready for `map_err`: `.map_err(FileError::when("read", path))`.
    pub fn when(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { doing, path: path.to_owned(), source }
    }

    /// Returns true if there was no room left, on the disk or in the user's quota: the one failure
    /// that the next module will meet as well.
    #[must_use]
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(self.source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }

    /// Returns true if the file was not there.
    #[must_use]
    pub(crate) fn is_missing(&self) -> bool {
        self.source.kind() == ErrorKind::NotFound
    }
}

/// Returns the number of bytes that can still be written to the file system of `path`; `None` if it
/// is not known.
#[must_use]
pub fn room(path: &Path) -> Option<u64> {
    let system = nix::sys::statvfs::statvfs(path).ok()?;
    // The types differ between machines.
    #[allow(clippy::useless_conversion, reason = "on 64 bits both are u64 already")]
    Some(u64::from(system.blocks_available()) * u64::from(system.fragment_size()))
}

/// Gives `path` the content `bytes` and the mode 0644, whether or not it was there.
///
/// # Errors
/// [`FileError`]; `path` is then as it was, and nothing is left beside it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_with_mode(path, bytes, 0o644)
}

/// Makes `path` a program with this text, whether or not it was there.
///
/// # Errors
/// As [`write()`].
pub(crate) fn write_program(path: &Path, text: &str) -> Result<(), FileError> {
    write_with_mode(path, text.as_bytes(), 0o755)
}

fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = || FileError::when("write", path);
    let mut unfinished =
        tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(parent(path)).map_err(failed())?;
    unfinished.write_all(bytes).map_err(failed())?;
    // Set explicitly: a caller's umask must not make the trees unreadable for `dkms status`.
    unfinished.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed())?;
    unfinished.as_file().sync_all().map_err(failed())?;
    unfinished.persist(path).map_err(|error| failed()(error.error))?;
    sync_dir(parent(path))
}

/// Makes `path` a symbolic link with the text `target`, in place of a file or link that is there.
///
/// # Errors
/// [`FileError`]; `path` is then as it was, and nothing is left beside it.
pub(crate) fn replace_link(path: &Path, target: &Path) -> Result<(), FileError> {
    let failed = || FileError::when("link", path);
    let unfinished = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .make_in(parent(path), |free| symlink(target, free))
        .map_err(failed())?;
    unfinished.into_temp_path().persist(path).map_err(|error| failed()(error.error))?;
    sync_dir(parent(path))
}

/// Brings the names in directory `path` to the disk: a rename is durable only then.
///
/// # Errors
/// [`FileError`] if the directory cannot be opened or the disk refuses.
pub(crate) fn sync_dir(path: &Path) -> Result<(), FileError> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    match synced {
        // Some network and FUSE filesystems have no fsync for directories; nothing can be done.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        other => other.map_err(FileError::when("sync", path)),
    }
}

/// Makes directory `path` and those above it, as far as they are missing.
///
/// # Errors
/// [`FileError`] if one of them cannot be made.
pub fn create_dirs(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(FileError::when("create directory", path))
}

/// Removes a file or link, which need not be there. Says whether it was.
///
/// # Errors
/// [`FileError`] if it is there and stays.
pub fn remove_file_if_there(path: &Path) -> Result<bool, FileError> {
    if_there(fs::remove_file(path)).map_err(FileError::when("remove", path))
}

/// Removes whatever `path` is, a directory with all it holds. Links are removed, never followed.
/// Says whether anything was there.
///
/// # Errors
/// [`FileError`] at the first entry that cannot be removed; some of the tree may be gone then.
pub fn remove_tree(path: &Path) -> Result<bool, FileError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    if_there(removed).map_err(FileError::when("remove", path))
}

/// Removes `dir` if it is empty, then its parent if that is empty now, and so on; `stop` itself
/// stays in any case. Directories that are gone already do not end the climb.
///
/// # Errors
/// [`FileError`] if `dir` is not below `stop`, or if an empty directory cannot be removed.
pub(crate) fn remove_empty_dirs_up_to(dir: &Path, stop: &Path) -> Result<(), FileError> {
    let below = dir.strip_prefix(stop).ok().filter(|path| {
        path.components().all(|component| matches!(component, Component::Normal(_)))
    });
    if below.is_none() {
        let outside = io::Error::new(ErrorKind::InvalidInput, format!("not in {}", stop.display()));
        return Err(FileError::when("tidy", dir)(outside));
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

/// Removes what an interrupted change left directly in `dir`: everything named
/// [`UNFINISHED`]`…`. Only for whoever holds the lock; others may be at work on theirs.
///
/// # Errors
/// [`FileError`] if `dir` cannot be listed or an entry cannot be removed. A missing `dir` is fine.
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

/// `true` for done, `false` for "there was nothing".
fn if_there(done: io::Result<()>) -> io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The directory that holds `path`; `.` for a bare name.
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
    fn writes_whole_files_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(names(dir.path()), ["record"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_and_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = write(&path, b"x").unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot write {}: ", path.display())));
        assert_eq!(names(dir.path()), ["taken"]);
    }

    #[test]
    fn replaces_links_and_files_by_links() {
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
    #[case::stops_at_the_first_with_content(&["top/a/file"], "top/a")]
    fn climbs_through_empty_directories(#[case] files: &[&str], #[case] left: &str) {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("top/a/b/c")).unwrap();
        for file in files {
            fs::write(at(file), "").unwrap();
        }
        // The innermost is gone already, as after an interrupted removal.
        remove_empty_dirs_up_to(&at("top/a/b/c/d"), &at("top")).unwrap();
        assert!(at(left).is_dir() && !at("top/a/b").exists());
    }

    #[rstest]
    #[case::elsewhere("/etc/x")]
    #[case::back_out("/stop/a/../../etc")]
    fn climbs_only_below_its_stop(#[case] dir: &str) {
        let error = remove_empty_dirs_up_to(Path::new(dir), Path::new("/stop")).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn sweeps_what_an_interruption_left() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".tmp-abc")).unwrap();
        fs::write(dir.path().join(".tmp-def"), "").unwrap();
        fs::write(dir.path().join("kept"), "").unwrap();
        remove_unfinished(dir.path()).unwrap();
        remove_unfinished(&dir.path().join("missing")).unwrap();
        assert_eq!(names(dir.path()), ["kept"]);
    }

    #[test]
    fn knows_a_full_disk() {
        let error = fs::write("/dev/full", "x").map_err(FileError::when("write", Path::new("x")));
        assert!(error.unwrap_err().is_disk_full());
    }
}
