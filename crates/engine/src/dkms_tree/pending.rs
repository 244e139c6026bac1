//! The list of pending work, one small file per entry in `T/.pending`.
//!
//! An entry is written before its work starts and removed once the work is finished. If the run is
//! killed, the next hook, `dkms autoinstall` or the boot unit finishes the work. The boot unit starts
//! only if `T/.pending` is not empty.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::journal::PREFIX as JOURNAL_PREFIX;
use crate::machine::Trees;
use crate::names::{KernelRelease, ModuleId};
use crate::os::durable::{self, Durability, FileError};
use crate::os::shared::lock;
use crate::os::toml_file;
use crate::os::unsynced::Unsynced;

/// Unfinished work that is recorded on disk, so that a later run can finish it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PendingWork {
    /// The name (`name-version`) of a source directory that has arrived or changed. To finish, build
    /// the module for every kernel.
    Source(String),
    /// The release of a kernel that has arrived or changed. To finish, build every module for it.
    Kernel(KernelRelease),
    /// Several sources and kernels, in a single entry.
    Transaction {
        /// The names (`name-version`) of directories in the source tree.
        sources: BTreeSet<String>,
        /// The releases of the kernels.
        kernels: BTreeSet<KernelRelease>,
    },
    /// The name of a source directory that a completed transaction removed. The module is removed
    /// once its successor is in place.
    DepartedSource(String),
    /// The release of a kernel that a completed transaction removed. The builds for it are deleted
    /// once its directory no longer contains a kernel; another package may keep a copy until the
    /// next boot.
    DepartedKernel(KernelRelease),
    /// The installation of a module for a kernel.
    ///
    /// If it was interrupted, objects can be missing, and POST_INSTALL and depmod might not have
    /// run.
    Install {
        /// The module to install.
        module: ModuleId,
        /// The kernel whose directory receives the objects.
        kernel: KernelRelease,
    },
    /// The uninstallation of a module from a kernel.
    ///
    /// If it was interrupted, some objects can be left, and POST_REMOVE and depmod might not have
    /// run.
    Uninstall {
        /// The module to uninstall.
        module: ModuleId,
        /// The kernel whose directory contains the objects.
        kernel: KernelRelease,
    },
    /// The removal of a module from the dkms tree.
    Remove(ModuleId),
    /// Changes to modules' objects, which require a check of the kernel's initramfs images.
    ///
    /// The engine writes one entry for each kernel. The `initramfs` crate checks the images and
    /// clears it.
    Image {
        /// The kernel whose images are affected.
        kernel: KernelRelease,
        /// The names of the old and new objects of all changed modules without suffix, such as
        /// `zfs` and `spl`. Empty if all these modules failed to build.
        objects: BTreeSet<String>,
    },
}

impl PendingWork {
    /// Returns the entry that this one cancels, or `None` if it cancels none.
    ///
    /// A pending installation cancels a pending uninstallation of the same module, and vice versa.
    #[must_use]
    pub(crate) fn opposite(&self) -> Option<Self> {
        match self.clone() {
            Self::Install { module, kernel } => Some(Self::Uninstall { module, kernel }),
            Self::Uninstall { module, kernel } => Some(Self::Install { module, kernel }),
            _ => None,
        }
    }

    /// Returns the name of the entry's file.
    ///
    /// The name ends with a digest, since different entries can have the same readable part.
    fn file_name(&self) -> String {
        let (kind, what) = match self {
            Self::Source(dir) => ("source", dir.clone()),
            Self::Kernel(kernel) => ("kernel", kernel.to_string()),
            Self::Transaction { sources, kernels } => {
                let kernels = kernels.iter().map(ToString::to_string);
                let names: Vec<String> = sources.iter().cloned().chain(kernels).collect();
                ("transaction", names.join(" "))
            }
            Self::DepartedSource(dir) => ("departed-source", dir.clone()),
            Self::DepartedKernel(kernel) => ("departed-kernel", kernel.to_string()),
            Self::Install { module, kernel } => ("install", format!("{module} {kernel}")),
            Self::Uninstall { module, kernel } => ("uninstall", format!("{module} {kernel}")),
            Self::Remove(module) => ("remove", module.to_string()),
            Self::Image { kernel, .. } => ("image", kernel.to_string()),
        };
        let digest = blake3::hash(what.as_bytes()).to_hex();
        let readable: String = what
            .chars()
            .take(120)
            .map(|c| if c.is_ascii_alphanumeric() || ".+-_".contains(c) { c } else { '_' })
            .collect();
        format!("{kind}-{readable}-{}.toml", &digest[..8])
    }
}

/// The number of the files' format. The files of the first format contain no number.
const FORMAT: u32 = 2;

/// The content of an entry's file.
#[derive(Serialize, Deserialize)]
struct PendingFile {
    #[serde(default = "first_format")]
    format: u32,
    work: PendingWork,
}

fn first_format() -> u32 {
    1
}

impl PendingFile {
    fn of(work: PendingWork) -> Self {
        Self { format: FORMAT, work }
    }

    /// Returns true if the file `path` exists in the present format.
    fn exists(path: &Path) -> bool {
        path.exists() && toml_file::read::<Self>(path).is_some_and(|file| file.format == FORMAT)
    }

    /// Returns the entry, or `None` if its format is another one. Such a file is kept.
    ///
    /// Entries of the first format permit no removals, since they were written on a guess.
    fn work(self) -> Option<PendingWork> {
        let is_build = matches!(
            self.work,
            PendingWork::Source(_)
                | PendingWork::Kernel(_)
                | PendingWork::Transaction { .. }
                | PendingWork::Install { .. }
                | PendingWork::Image { .. }
        );
        (self.format == FORMAT || (self.format == 1 && is_build)).then_some(self.work)
    }
}

/// The list of pending work in a dkms tree.
#[derive(Debug, Clone)]
pub struct PendingList {
    dir: PathBuf,
}

impl PendingList {
    /// Returns the list of pending work in the dkms tree of `trees`.
    #[must_use]
    pub fn of(trees: &Trees) -> Self {
        Self { dir: trees.pending() }
    }

    /// Returns true if there is neither pending work nor a journal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.dir).map_or(true, |mut entries| entries.next().is_none())
    }

    /// Reads all pending work and returns it sorted. Logs and skips invalid files.
    #[must_use]
    pub fn read(&self) -> Vec<PendingWork> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let mut all: Vec<PendingWork> = entries
            .flatten()
            .filter(|entry| is_entry(&entry.file_name()))
            .filter_map(|entry| toml_file::read::<PendingFile>(&entry.path())?.work())
            .collect();
        all.sort();
        all
    }

    /// Adds `work` to the list. Does nothing if the list already contains it.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub fn write(&self, work: &PendingWork) -> Result<(), FileError> {
        let path = self.dir.join(work.file_name());
        if PendingFile::exists(&path) {
            return Ok(());
        }
        toml_file::write(&path, &PendingFile::of(work.clone()))
    }

    /// Adds `works` to the list, except those that it already contains.
    ///
    /// # Errors
    /// [`FileError`] if a file cannot be written.
    pub(crate) fn write_all(&self, works: &[PendingWork]) -> Result<(), FileError> {
        let mut unsynced = Unsynced::default();
        for work in works {
            let path = self.dir.join(work.file_name());
            if !PendingFile::exists(&path) {
                let file = PendingFile::of(work.clone());
                toml_file::write_with(&path, &file, Durability::None)?;
                unsynced.add_file(path);
                unsynced.add_dir(&self.dir);
            }
        }
        unsynced.sync()
    }

    /// Adds `objects` to the entry for the images of `kernel`.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub(crate) fn note_images(
        &self,
        kernel: &KernelRelease,
        objects: &BTreeSet<String>,
        durability: Durability,
    ) -> Result<(), FileError> {
        /// The main thread and the thread that installs modules both change the entry.
        static WRITING: Mutex<()> = Mutex::new(());
        let _alone = lock(&WRITING);
        let mut all = objects.clone();
        let work = |objects| PendingWork::Image { kernel: kernel.clone(), objects };
        let path = self.dir.join(work(BTreeSet::new()).file_name());
        let file = toml_file::read(&path).and_then(PendingFile::work);
        if let Some(PendingWork::Image { objects: known, .. }) = file {
            if objects.is_subset(&known) {
                return Ok(());
            }
            all.extend(known);
        }
        toml_file::write_with(&path, &PendingFile::of(work(all)), durability)
    }

    /// Adds the files of pending images, which are written without syncing them, to `unsynced`.
    pub(crate) fn add_images_to(&self, unsynced: &mut Unsynced) {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let images = entries.filter(|it| it.file_name().as_encoded_bytes().starts_with(b"image-"));
        for image in images {
            unsynced.add_file(image.path());
            unsynced.add_dir(&self.dir);
        }
    }

    /// Removes `work` from the list, and the list's directory once it is empty.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be removed.
    pub fn clear(&self, work: &PendingWork) -> Result<(), FileError> {
        durable::remove_file_if_there(&self.dir.join(work.file_name()))?;
        // This succeeds only if no other work is pending.
        let _ = std::fs::remove_dir(&self.dir);
        Ok(())
    }
}

/// Returns true if a file in `T/.pending` is an entry, not a journal.
fn is_entry(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.ends_with(".toml") && !name.starts_with(JOURNAL_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> (tempfile::TempDir, PendingList) {
        let root = tempfile::tempdir().unwrap();
        let list = PendingList::of(&Trees::under(root.path()));
        std::fs::create_dir_all(&list.dir).unwrap();
        (root, list)
    }

    #[test]
    fn entries_of_the_first_format_permit_no_removal() {
        let (_root, list) = list();
        for (name, text) in [
            ("transaction", "[work.transaction]\nsources = [\"foo-1\"]\nkernels = []\n"),
            ("source", "[work]\nsource = \"bar-1\"\n"),
            ("remove", "[work]\nremove = \"foo/1\"\n"),
            ("uninstall", "[work.uninstall]\nmodule = \"foo/1\"\nkernel = \"7.2\"\n"),
            ("left-over", "[work]\nleft-over = \"7.2\"\n"),
        ] {
            std::fs::write(list.dir.join(format!("{name}-x.toml")), text).unwrap();
        }
        let (sources, kernels) = (["foo-1".to_owned()].into(), BTreeSet::new());
        let want =
            [PendingWork::Source("bar-1".into()), PendingWork::Transaction { sources, kernels }];
        assert_eq!(list.read(), want);
        assert_eq!(std::fs::read_dir(&list.dir).unwrap().count(), 5, "the files are kept");
    }

    #[test]
    fn entries_of_a_later_format_are_kept_and_ignored() {
        let (_root, list) = list();
        let work = PendingWork::DepartedSource("foo-1".into());
        list.write(&work).unwrap();
        assert_eq!(list.read(), std::slice::from_ref(&work));
        let path = list.dir.join(work.file_name());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("format = 2", "format = 3")).unwrap();
        assert_eq!(list.read(), []);
        assert!(path.exists() && !list.is_empty());
    }
}
