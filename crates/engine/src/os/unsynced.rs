//! Syncs many files and directories together, each once.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::durable::{FileError, sync_dir};
use super::parallel::on_threads;

/// The number of files that are synced at the same time.
const SYNC_THREADS: usize = 8;

/// Files and directories that a run has changed, to be synced together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unsynced {
    files: BTreeSet<PathBuf>,
    dirs: BTreeSet<PathBuf>,
}

impl Unsynced {
    /// Adds a file. If it no longer exists, [`Self::sync`] skips it.
    pub(crate) fn add_file(&mut self, path: impl Into<PathBuf>) {
        self.files.insert(path.into());
    }

    /// Adds a directory whose entries have changed. If the directory no longer exists,
    /// [`Self::sync`] skips it.
    pub(crate) fn add_dir(&mut self, path: impl Into<PathBuf>) {
        self.dirs.insert(path.into());
    }

    /// Syncs the files first and then the directories. Syncs several of them at the same time,
    /// because the file system can write them together.
    ///
    /// # Errors
    /// [`FileError`] for the first existing file or directory that cannot be synced.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        [&self.files, &self.dirs].into_iter().try_for_each(|paths| {
            let paths: Vec<&PathBuf> = paths.iter().collect();
            let synced = on_threads(&paths, SYNC_THREADS, |path| sync_dir(path));
            synced.into_iter().try_for_each(|result| match result {
                Err(error) if error.is_missing() => Ok(()),
                other => other,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn removed_files_need_not_be_synced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let mut unsynced = Unsynced::default();
        unsynced.add_file(&file);
        unsynced.add_file(dir.path().join("removed"));
        unsynced.add_dir(dir.path().join("removed/dir"));
        unsynced.sync().unwrap();
        unsynced.add_dir(file.join("dir"));
        assert!(unsynced.sync().unwrap_err().to_string().starts_with("cannot sync "));
    }
}
