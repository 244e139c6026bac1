//! Records failed builds, so that transactions do not repeat them with the same inputs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::workplace;
use crate::machine::{Machine, Trees};
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::digest::Digest;
use crate::os::durable::{self, FileError};
use crate::os::toml_file;

/// The record of a failed build. Transactions do not repeat the build with the same inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFailure {
    /// The fingerprint of the build's inputs.
    pub fingerprint: Digest,
    /// The error message, on one line.
    pub what: String,
    /// The path of the build's log.
    pub log: PathBuf,
}

impl KnownFailure {
    /// Returns the path of the record for a failed build: `T/.failed/M-V-K-A.toml`.
    #[must_use]
    pub fn path(trees: &Trees, id: &ModuleId, kernel: &KernelRelease, arch: &Arch) -> PathBuf {
        trees.failures().join(format!("{}-{kernel}-{arch}.toml", id.source_dir()))
    }

    /// Reads the record at `path`. Returns `None` if the file is missing or invalid.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        toml_file::read(path)
    }

    /// Writes the record to `path` atomically.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), FileError> {
        toml_file::write(path, self)
    }
}

/// Removes the record and the log of a failed build, and the files that the build left in
/// `T/M/V/build`.
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
    workplace::remove_failed_build(machine, id)
}
