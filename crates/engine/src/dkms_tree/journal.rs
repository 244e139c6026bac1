//! The journal of a transaction: the paths that it is about to install and remove.
//!
//! Two PreTransaction hooks write it to `T/.pending`, one for the paths that arrive and one for
//! those that depart. While pacman works, both the old and the new version of a package may be
//! missing from the disk and from pacman's database. Only the journal can tell such a gap from a
//! removal.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::machine::{Transaction, Trees};
use crate::os::durable::{self, FileError};
use crate::os::stat::FileStamp;
use crate::os::toml_file;

/// The version of the file format. A file in another format is ignored and kept.
const FORMAT: u32 = 1;

/// The prefix of the names of journal files.
pub(super) const PREFIX: &str = "journal-";

/// The operation that a transaction performs on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// pacman installs the path or replaces it.
    Arriving,
    /// pacman removes the path.
    Departing,
}

impl Operation {
    /// Returns `arriving` or `departing`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Arriving => "arriving",
            Self::Departing => "departing",
        }
    }
}

/// The state of a path before a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Before {
    /// The path did not exist.
    Absent,
    /// The path was a file, or a link to one.
    File(FileStamp),
    /// The path was a directory. pacman does not replace existing directories.
    Directory,
    /// The path could not be examined.
    Unknown,
}

/// A path of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalPath {
    pub(crate) before: Before,
    /// The installed package that owned a departing path, if known. Always `None` for an arriving
    /// path.
    pub(crate) package: Option<String>,
}

/// The paths of one transaction, without a leading `/`, as in pacman's own lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Journal {
    pub(crate) transaction: Transaction,
    pub(crate) arriving: BTreeMap<String, JournalPath>,
    pub(crate) departing: BTreeMap<String, JournalPath>,
    /// The files in which the journal is recorded.
    pub(crate) files: Vec<PathBuf>,
}

/// The content of a journal file.
#[derive(Serialize, Deserialize)]
struct JournalFile {
    format: u32,
    operation: Operation,
    transaction: Transaction,
    paths: BTreeMap<String, JournalPath>,
}

/// Records that `transaction` is about to perform `operation` on `paths`. The paths have no leading
/// `/`.
///
/// # Errors
/// [`FileError`] if the file cannot be written.
pub fn record(
    trees: &Trees,
    transaction: &Transaction,
    operation: Operation,
    paths: impl IntoIterator<Item = String>,
) -> Result<(), FileError> {
    let paths: Vec<String> = paths.into_iter().collect();
    // The package's name is only for messages, so an unreadable database does not matter.
    let owners = match operation {
        Operation::Departing => transaction.owners(trees, &paths.iter().cloned().collect()),
        Operation::Arriving => Ok(BTreeMap::new()),
    };
    let owners = owners.unwrap_or_default();
    let paths = paths.into_iter().map(|path| {
        let package = owners.get(&path).cloned();
        (path.clone(), JournalPath { before: before(trees, &path), package })
    });
    let file = JournalFile {
        format: FORMAT,
        operation,
        transaction: transaction.clone(),
        paths: paths.collect(),
    };
    let name = format!("{PREFIX}{}-{}.toml", transaction.short_name(), operation.name());
    let path = trees.pending().join(name);
    // This hook does not take the lock, so a run that holds the lock may remove the temporary
    // file that is being written here. Such a run removes files only once, so one retry is enough.
    toml_file::write(&path, &file).or_else(|_| toml_file::write(&path, &file))
}

/// Deletes the journal of the transaction that runs this hook, unless the journal still lists
/// paths. Call this function in the last hook that changes anything.
///
/// # Errors
/// [`FileError`] if a file cannot be deleted.
pub fn finish(trees: &Trees) -> Result<(), FileError> {
    let is_finished = |it: &Journal| it.is_closed() && it.transaction.contains_this_process();
    Journal::read_all(trees).iter().filter(|it| is_finished(it)).try_for_each(|it| it.clear(trees))
}

fn before(trees: &Trees, path: &str) -> Before {
    match fs::symlink_metadata(trees.root.join(path)) {
        Ok(meta) if meta.is_dir() => Before::Directory,
        Ok(meta) => Before::File(FileStamp::of(&meta)),
        Err(error) if error.kind() == ErrorKind::NotFound => Before::Absent,
        Err(_) => Before::Unknown,
    }
}

impl Journal {
    /// Reads the journals of all recorded transactions. Logs and skips invalid files and files in
    /// another format.
    pub(crate) fn read_all(trees: &Trees) -> Vec<Self> {
        let entries = fs::read_dir(trees.pending()).into_iter().flatten().flatten();
        let is_journal = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(PREFIX) && name.ends_with(".toml")
        };
        let mut files: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(is_journal).collect();
        files.sort();
        let mut all: Vec<Self> = Vec::new();
        for path in files {
            let Some(file) = JournalFile::read(&path) else { continue };
            let known = all.iter().position(|journal| journal.transaction == file.transaction);
            let index = known.unwrap_or(all.len());
            if known.is_none() {
                all.push(Self {
                    transaction: file.transaction,
                    arriving: BTreeMap::new(),
                    departing: BTreeMap::new(),
                    files: Vec::new(),
                });
            }
            let journal = &mut all[index];
            match file.operation {
                Operation::Arriving => journal.arriving.extend(file.paths),
                Operation::Departing => journal.departing.extend(file.paths),
            }
            journal.files.push(path);
        }
        all
    }

    /// Removes all paths from the journal, so that it only shows that the transaction is running.
    ///
    /// A later hook of the transaction regenerates the pending images, and no other run may
    /// regenerate them before that.
    ///
    /// # Errors
    /// [`FileError`] if a file cannot be written or deleted.
    pub(crate) fn close(&self) -> Result<(), FileError> {
        let Some((first, others)) = self.files.split_first() else { return Ok(()) };
        for file in others.iter().rev() {
            durable::remove_file_if_there(file)?;
        }
        let (operation, transaction) = (Operation::Arriving, self.transaction.clone());
        let paths = BTreeMap::new();
        toml_file::write(first, &JournalFile { format: FORMAT, operation, transaction, paths })
    }

    fn is_closed(&self) -> bool {
        self.arriving.is_empty() && self.departing.is_empty()
    }

    /// Deletes the journal, and then the directory of pending work if it is empty.
    ///
    /// # Errors
    /// [`FileError`] if a file cannot be deleted.
    pub(crate) fn clear(&self, trees: &Trees) -> Result<(), FileError> {
        // The file of the arriving paths is deleted last: without it, the transaction would look
        // like a mere removal.
        for file in self.files.iter().rev() {
            durable::remove_file_if_there(file)?;
        }
        // This succeeds only if no other work is pending.
        let _ = fs::remove_dir(trees.pending());
        Ok(())
    }
}

impl JournalFile {
    fn read(path: &Path) -> Option<Self> {
        let file: Self = toml_file::read(path)?;
        if file.format != FORMAT {
            log::warn!("{}: ignored: not in format {FORMAT}", path.display());
            return None;
        }
        Some(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "usr/src/foo-1/dkms.conf";
    const NEW: &str = "usr/src/foo-2/dkms.conf";

    fn trees() -> (tempfile::TempDir, Trees) {
        let root = tempfile::tempdir().unwrap();
        let trees = Trees::under(root.path());
        fs::create_dir_all(root.path().join("usr/src/foo-1")).unwrap();
        fs::write(root.path().join(OLD), "").unwrap();
        fs::create_dir_all(root.path().join("usr/lib/modules/7.2/build/include")).unwrap();
        (root, trees)
    }

    #[test]
    fn both_hooks_of_a_transaction_write_one_journal() {
        let (root, trees) = trees();
        let transaction = Transaction::of_this_hook(&trees);
        let headers = "usr/lib/modules/7.2/build/include/";
        let arriving = [NEW, headers].map(str::to_owned);
        record(&trees, &transaction, Operation::Arriving, arriving).unwrap();
        record(&trees, &transaction, Operation::Departing, [OLD.to_owned()]).unwrap();
        let all = Journal::read_all(&trees);
        let [journal] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(journal.transaction, transaction);
        assert_eq!(journal.arriving[NEW].before, Before::Absent);
        assert_eq!(journal.arriving[headers].before, Before::Directory);
        let meta = fs::metadata(root.path().join(OLD)).unwrap();
        assert_eq!(journal.departing[OLD].before, Before::File(FileStamp::of(&meta)));
        journal.clear(&trees).unwrap();
        assert!(!trees.pending().exists());
    }

    #[test]
    fn closed_journal_stays_until_the_last_hook() {
        let (_root, trees) = trees();
        let transaction = Transaction::of_this_hook(&trees);
        record(&trees, &transaction, Operation::Arriving, [NEW.to_owned()]).unwrap();
        record(&trees, &transaction, Operation::Departing, [OLD.to_owned()]).unwrap();
        finish(&trees).unwrap();
        let [journal] = &Journal::read_all(&trees)[..] else { panic!("no journal") };
        assert!(!journal.is_closed(), "it still lists paths");
        journal.close().unwrap();
        let [journal] = &Journal::read_all(&trees)[..] else { panic!("no journal") };
        assert_eq!((&journal.transaction, journal.is_closed()), (&transaction, true));
        finish(&trees).unwrap();
        assert!(!trees.pending().exists());
    }

    #[test]
    fn journals_of_another_format_are_kept_and_ignored() {
        let (_root, trees) = trees();
        let transaction = Transaction::of_this_hook(&trees);
        record(&trees, &transaction, Operation::Departing, [OLD.to_owned()]).unwrap();
        let [journal] = &Journal::read_all(&trees)[..] else { panic!("no journal") };
        let path = &journal.files[0];
        let text = fs::read_to_string(path).unwrap();
        for other in ["format = 2", "", "format = \"1\""] {
            fs::write(path, text.replace("format = 1", other)).unwrap();
            assert_eq!(Journal::read_all(&trees), []);
            assert!(path.exists());
        }
    }

    #[test]
    fn a_path_that_cannot_be_examined_is_unknown() {
        let (_root, trees) = trees();
        let transaction = Transaction::of_this_hook(&trees);
        let paths = [format!("{OLD}/below-a-file"), "usr/src/missing/dkms.conf".to_owned()];
        record(&trees, &transaction, Operation::Departing, paths.clone()).unwrap();
        let [journal] = &Journal::read_all(&trees)[..] else { panic!("no journal") };
        let before = paths.map(|path| journal.departing[&path].before.clone());
        assert_eq!(before, [Before::Unknown, Before::Absent]);
    }

    #[test]
    fn only_files_with_the_name_of_a_journal_are_read() {
        let (_root, trees) = trees();
        let transaction = Transaction::of_this_hook(&trees);
        record(&trees, &transaction, Operation::Departing, [OLD.to_owned()]).unwrap();
        let [journal] = &Journal::read_all(&trees)[..] else { panic!("no journal") };
        for other in ["journal-1.toml.bak", "source-1.toml"] {
            fs::copy(&journal.files[0], trees.pending().join(other)).unwrap();
        }
        assert_eq!(Journal::read_all(&trees), std::slice::from_ref(journal));
        assert!(!journal.is_closed(), "it lists departing paths");
    }
}
