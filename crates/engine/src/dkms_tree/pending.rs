//! Pending work, one small file each in `T/.pending`.
//!
//! A file is written before the work is begun and removed after it, so that the next hook,
//! `dkms autoinstall` or the boot unit finishes the work of a run that was killed, or that never came
//! because pacman was. The boot unit starts only while the directory is not empty.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::machine::Trees;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::os::durable::{self, FileError};
use crate::os::toml_file;

/// Something that has to be done, or looked at again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PendingWork {
    /// A source directory (`name-version`) that a transaction brings, changes or takes away:
    /// build it for every kernel, or remove the module if the directory is gone.
    Source(String),
    /// A kernel that a transaction brings, changes or takes away: build every module for it, or
    /// remove what was built for it if the kernel is gone.
    Kernel(KernelRelease),
    /// Everything a transaction names, in one file: [`PendingWork::Source`] and [`PendingWork::Kernel`] of each.
    Transaction {
        /// Directories of the source tree.
        sources: BTreeSet<String>,
        /// Kernel releases.
        kernels: BTreeSet<KernelRelease>,
    },
    /// A kernel that is gone but for a copy that is kept until the next boot: remove what was
    /// built for it once the copy is gone too.
    LeftOver(KernelRelease),
    /// A module that is being installed for a kernel: objects may be half placed, POST_INSTALL
    /// and depmod may not have run.
    Install {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
    },
    /// A module that is being uninstalled from a kernel: objects may be left, POST_REMOVE and
    /// depmod may not have run.
    Uninstall {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
    },
    /// A module that is being removed altogether.
    Remove(ModuleId),
    /// A kernel's objects of a module that were placed, replaced or taken away since its initramfs
    /// was looked at. The engine only writes it; whoever looks after images clears it.
    Image {
        /// The kernel.
        kernel: KernelRelease,
        /// The module.
        module: ModuleName,
        /// The objects' names without suffix, old and new ones: `zfs`, `spl`; none if the module did not build.
        objects: BTreeSet<String>,
    },
}

impl PendingWork {
    /// The work that this one makes void: what is being installed now is not to be uninstalled.
    #[must_use]
    pub(crate) fn opposite(&self) -> Option<Self> {
        match self.clone() {
            Self::Install { module, kernel } => Some(Self::Uninstall { module, kernel }),
            Self::Uninstall { module, kernel } => Some(Self::Install { module, kernel }),
            _ => None,
        }
    }

    /// One file for each: the name says what it is, the digest keeps odd names apart.
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

/// The file's content: TOML wants a table at its top.
#[derive(Serialize, Deserialize)]
struct Page {
    work: PendingWork,
}

/// The pending work of one machine.
#[derive(Debug, Clone)]
pub struct PendingList {
    dir: PathBuf,
}

impl PendingList {
    /// The pending work in a dkms tree.
    #[must_use]
    pub fn of(trees: &Trees) -> Self {
        Self { dir: trees.pending() }
    }

    /// Reads all pending work, sorted. Other files are reported in the log and left alone.
    #[must_use]
    pub fn read(&self) -> Vec<PendingWork> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let mut all: Vec<PendingWork> = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|ext| ext == "toml"))
            .filter_map(|entry| toml_file::read::<Page>(&entry.path()))
            .map(|page| page.work)
            .collect();
        all.sort();
        all
    }

    /// Notes work. Writing the same work again changes nothing.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub fn write(&self, work: &PendingWork) -> Result<(), FileError> {
        let path = self.dir.join(work.file_name());
        if path.exists() {
            return Ok(());
        }
        let page = Page { work: work.clone() };
        // A run that holds the lock sweeps unfinished files, perhaps ours: the journal takes none.
        toml_file::write(&path, &page).or_else(|_| toml_file::write(&path, &page))
    }

    /// Removes the note of work. An empty directory is removed too: the boot unit looks at it.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be removed.
    pub fn clear(&self, work: &PendingWork) -> Result<(), FileError> {
        durable::remove_file_if_there(&self.dir.join(work.file_name()))?;
        // Fails while other work is pending, as it should.
        let _ = std::fs::remove_dir(&self.dir);
        Ok(())
    }
}
