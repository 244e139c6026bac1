//! The list of pending work, one small file per entry in `T/.pending`.
//!
//! An entry is written before its work starts and removed once the work is finished. If the run is
//! killed, the next hook, `dkms autoinstall` or the boot unit finishes the work. The boot unit
//! starts only if `T/.pending` is not empty. An entry counts the [`Attempts`] at its work.

mod images;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::attempts::Attempts;
use super::journal::PREFIX as JOURNAL_PREFIX;
use crate::machine::Trees;
use crate::names::{KernelRelease, ModuleId};
use crate::os::digest::Digest;
use crate::os::durable::{self, Durability, FileError};
use crate::os::toml_file;

pub(crate) use images::NotedImages;

/// Unfinished work that is recorded on disk, so that a later run can finish it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PendingWork {
    /// The name (`name-version`) of a source directory that has arrived or changed. The work is to
    /// build the module for every kernel.
    Source(String),
    /// The release of a kernel that has arrived or changed. The work is to build all modules for
    /// it.
    Kernel(KernelRelease),
    /// Several sources and kernels that have arrived or changed, in a single entry.
    Transaction {
        /// The names (`name-version`) of directories in the source tree.
        sources: BTreeSet<String>,
        /// The releases of the kernels.
        kernels: BTreeSet<KernelRelease>,
    },
    /// The name of a source directory that a completed transaction removed. The module is removed
    /// once its successor is in place.
    DepartedSource(String),
    /// The release of a kernel that a completed transaction removed. The builds for this kernel are
    /// deleted once its directory no longer contains a kernel. Another package may keep a copy
    /// there until the next boot.
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
    /// clears the entry.
    Image {
        /// The kernel whose images are affected.
        kernel: KernelRelease,
        /// The names, without suffix, of the old and new objects of all changed modules, such as
        /// `zfs` and `spl`. Empty if none of these modules was built.
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

    /// Returns the module and the kernel of an installation or uninstallation; `None` for other
    /// work.
    #[must_use]
    pub fn module_and_kernel(&self) -> Option<(&ModuleId, &KernelRelease)> {
        match self {
            Self::Install { module, kernel } | Self::Uninstall { module, kernel } => {
                Some((module, kernel))
            }
            _ => None,
        }
    }

    /// Returns the entry for installing a module for a kernel.
    #[must_use]
    pub(crate) fn install(module: &ModuleId, kernel: &KernelRelease) -> Self {
        Self::Install { module: module.clone(), kernel: kernel.clone() }
    }

    /// Returns the entry for uninstalling a module from a kernel.
    #[must_use]
    pub(crate) fn uninstall(module: &ModuleId, kernel: &KernelRelease) -> Self {
        Self::Uninstall { module: module.clone(), kernel: kernel.clone() }
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

/// The version of the file format. Files in the first format do not contain a version.
const FORMAT: u32 = 2;

/// The content of an entry's file.
#[derive(Serialize, Deserialize)]
struct PendingFile {
    #[serde(default = "first_format")]
    format: u32,
    work: PendingWork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempts: Option<Attempts>,
}

fn first_format() -> u32 {
    1
}

impl PendingFile {
    fn of(work: PendingWork) -> Self {
        Self { format: FORMAT, work, attempts: None }
    }

    /// Returns true if the file `path` exists in the current format.
    fn exists(path: &Path) -> bool {
        path.exists() && toml_file::read::<Self>(path).is_some_and(|file| file.format == FORMAT)
    }

    /// Returns the pending work, or `None` if the format is unknown. Such a file is kept.
    ///
    /// Also returns `None` for removals and uninstallations in format 1, which were recorded before
    /// it was certain that the transaction would complete.
    fn work(self) -> Option<PendingWork> {
        self.entry().map(|(work, _)| work)
    }

    /// Returns the same as [`work`](Self::work), together with the attempts at the work.
    fn entry(self) -> Option<(PendingWork, Option<Attempts>)> {
        let is_build = matches!(
            self.work,
            PendingWork::Source(_)
                | PendingWork::Kernel(_)
                | PendingWork::Transaction { .. }
                | PendingWork::Install { .. }
                | PendingWork::Image { .. }
        );
        (self.format == FORMAT || (self.format == 1 && is_build))
            .then_some((self.work, self.attempts))
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

    /// Returns true if there is no pending work and no journal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.dir).map_or(true, |mut entries| entries.next().is_none())
    }

    /// Reads all pending work and returns it sorted. Logs and skips invalid files.
    #[must_use]
    pub fn read(&self) -> Vec<PendingWork> {
        let mut all: Vec<PendingWork> = self.entries().map(|(work, _)| work).collect();
        all.sort();
        all
    }

    /// Reads the attempts at the pending work. Work without attempts is omitted.
    #[must_use]
    pub fn attempts(&self) -> BTreeMap<PendingWork, Attempts> {
        self.entries().filter_map(|(work, attempts)| Some((work, attempts?))).collect()
    }

    fn entries(&self) -> impl Iterator<Item = (PendingWork, Option<Attempts>)> {
        let files = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let files = files.filter(|file| is_entry(&file.file_name()));
        files.filter_map(|file| toml_file::read::<PendingFile>(&file.path())?.entry())
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

    /// Adds `works` to the list, each with the fingerprint of its inputs. Skips work that the list
    /// already contains.
    ///
    /// Does not sync the contents of the files, since the work has not begun. After a power cut,
    /// the files may be empty.
    ///
    /// # Errors
    /// [`FileError`] if a file cannot be written.
    pub(crate) fn note_all(&self, works: &[(PendingWork, Digest)]) -> Result<(), FileError> {
        for (work, inputs) in works {
            let path = self.dir.join(work.file_name());
            if !PendingFile::exists(&path) {
                let attempts = Some(Attempts { count: 0, inputs: *inputs });
                let file = PendingFile { attempts, ..PendingFile::of(work.clone()) };
                toml_file::write_with(&path, &file, Durability::None)?;
            }
        }
        durable::sync_dir(&self.dir)
    }

    /// Adds `work` to the list with `attempts`. If the list already contains `work`, replaces its
    /// attempts.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub(crate) fn begin(
        &self,
        work: &PendingWork,
        attempts: Option<Attempts>,
    ) -> Result<(), FileError> {
        let file = PendingFile { attempts, ..PendingFile::of(work.clone()) };
        toml_file::write(&self.dir.join(work.file_name()), &file)
    }

    /// Does the same as [`begin`](Self::begin) for an entry that [`note_all`](Self::note_all) has
    /// added. Does not sync the directory again.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub(crate) fn begin_noted(
        &self,
        work: &PendingWork,
        attempts: Attempts,
    ) -> Result<(), FileError> {
        let file = PendingFile { attempts: Some(attempts), ..PendingFile::of(work.clone()) };
        toml_file::overwrite(&self.dir.join(work.file_name()), &file)
    }

    /// Removes the entries that a power cut has left empty. Their work had not begun.
    ///
    /// # Errors
    /// [`FileError`] if a file cannot be removed.
    pub(crate) fn remove_empty_entries(&self) -> Result<(), FileError> {
        let files = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let is_empty = |file: &std::fs::DirEntry| {
            is_entry(&file.file_name()) && file.metadata().is_ok_and(|meta| meta.len() == 0)
        };
        files
            .filter(is_empty)
            .try_for_each(|file| durable::remove_file_if_there(&file.path()).map(drop))
    }

    /// Removes `work` from the list, and then removes the list's directory if it is empty. Keeps
    /// the entry if another process has changed it in the meantime or if it has another format.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be removed.
    pub fn clear(&self, work: &PendingWork) -> Result<(), FileError> {
        let path = self.dir.join(work.file_name());
        let entry = toml_file::read(&path).and_then(PendingFile::work);
        if entry.as_ref() == Some(work) {
            durable::remove_file_if_there(&path)?;
        }
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
