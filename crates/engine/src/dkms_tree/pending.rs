//! The list of pending work, one small file per entry in `T/.pending`.
//!
//! An entry is written before its work starts and removed once the work is finished. If the run is
//! killed, or if pacman is killed before its hooks run, the next hook, `dkms autoinstall` or the
//! boot unit finishes the work. The boot unit starts only if `T/.pending` is not empty.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::machine::Trees;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::os::durable::{self, FileError};
use crate::os::toml_file;

/// Unfinished work that is recorded on disk, so that a later run can finish it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PendingWork {
    /// The name (`name-version`) of a source directory that a transaction installs, changes or
    /// removes.
    ///
    /// To finish, build the module for every kernel, or remove the module if the directory no
    /// longer exists.
    Source(String),
    /// The release of a kernel that a transaction installs, changes or removes.
    ///
    /// To finish, build every module for the kernel, or delete the builds for it if the kernel no
    /// longer exists.
    Kernel(KernelRelease),
    /// The sources and kernels of a transaction.
    ///
    /// This single entry replaces a [`PendingWork::Source`] or [`PendingWork::Kernel`] entry for
    /// each of them.
    Transaction {
        /// The names (`name-version`) of directories in the source tree.
        sources: BTreeSet<String>,
        /// The releases of the kernels.
        kernels: BTreeSet<KernelRelease>,
    },
    /// The release of a removed kernel whose module directory another package keeps until the next
    /// boot. The builds for the kernel are deleted once that directory is gone.
    LeftOver(KernelRelease),
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
    /// A change to a module's objects, which requires a check of the kernel's initramfs images.
    ///
    /// The engine writes this entry. The `initramfs` crate checks the images and clears it.
    Image {
        /// The kernel whose images are affected.
        kernel: KernelRelease,
        /// The name of the module that changed.
        module: ModuleName,
        /// The names of the old and new objects without suffix, such as `zfs` and `spl`. Empty if
        /// the module failed to build.
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
            Self::LeftOver(kernel) => ("left-over", kernel.to_string()),
            Self::Install { module, kernel } => ("install", format!("{module} {kernel}")),
            Self::Uninstall { module, kernel } => ("uninstall", format!("{module} {kernel}")),
            Self::Remove(module) => ("remove", module.to_string()),
            Self::Image { kernel, module, objects } => {
                let objects: Vec<&str> = objects.iter().map(String::as_str).collect();
                ("image", format!("{kernel} {module} {}", objects.join(" ")))
            }
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

/// The content of an entry's file. TOML requires a table at the top level, hence the struct.
#[derive(Serialize, Deserialize)]
struct PendingFile {
    work: PendingWork,
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

    /// Reads all pending work and returns it sorted. Logs and skips invalid files.
    #[must_use]
    pub fn read(&self) -> Vec<PendingWork> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let mut all: Vec<PendingWork> = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|ext| ext == "toml"))
            .filter_map(|entry| toml_file::read::<PendingFile>(&entry.path()))
            .map(|file| file.work)
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
        if path.exists() {
            return Ok(());
        }
        let file = PendingFile { work: work.clone() };
        // The journal hook writes without taking the lock. A run that holds the lock may remove the
        // hook's unfinished file once, so try again.
        toml_file::write(&path, &file).or_else(|_| toml_file::write(&path, &file))
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
