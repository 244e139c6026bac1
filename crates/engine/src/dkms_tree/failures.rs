//! Remembers failed builds, so that no transaction tries the same inputs again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::workplace;
use crate::machine::{Machine, Trees};
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::digest::Digest;
use crate::os::durable::{self, FileError};
use crate::os::toml_file;

/// A build that failed, remembered so that the same inputs are not tried at every transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFailure {
    /// The fingerprint of the inputs that were tried.
    pub fingerprint: Digest,
    /// What went wrong, in one line.
    pub what: String,
    /// The log of that build.
    pub log: PathBuf,
}

impl KnownFailure {
    /// Where a failure is remembered: `T/.failed/M-V-K-A.toml`.
    #[must_use]
    pub fn path(trees: &Trees, id: &ModuleId, kernel: &KernelRelease, arch: &Arch) -> PathBuf {
        trees.failures().join(format!("{}-{kernel}-{arch}.toml", id.source_dir()))
    }

    /// The failure remembered for these, if there is one.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        toml_file::read(path)
    }

    /// Remembers the failure.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), FileError> {
        toml_file::write(path, self)
    }
}

/// Removes what is remembered of failed builds of a module for a kernel, log and all.
pub(crate) fn forget_failure(
    machine: &Machine,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Result<(), FileError> {
    let trees = &machine.trees;
    let failure = KnownFailure::path(trees, id, kernel, &machine.arch);
    let log = trees.failure_log(id, kernel, &machine.arch);
    for file in [failure, log] {
        durable::remove_file_if_there(&file)?;
    }
    workplace::forget_left(machine, id)
}
