//! Describes a module to import from an archive or a directory.

use std::path::PathBuf;

use crate::names::{Arch, KernelRelease, ModuleId};

/// A module to import from an archive or a directory.
#[derive(Debug, Clone)]
pub struct Import {
    /// The name and version in the module's dkms.conf.
    pub id: ModuleId,
    /// The directory to copy into the source tree; `None` if the source is already there.
    pub(crate) source: Option<PathBuf>,
    /// The builds in the archive; empty for a directory.
    pub(crate) builds: Vec<ImportedBuild>,
    /// Whether the module comes from an archive in dkms's own format.
    pub(crate) packed: bool,
}

/// A build in an unpacked archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedBuild {
    /// The kernel for which the module was built.
    pub kernel: KernelRelease,
    /// The architecture for which the module was built.
    pub arch: Arch,
    /// The unpacked directory that contains `module/` and `log/`.
    pub dir: PathBuf,
}
