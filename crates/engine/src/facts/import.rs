//! The module that an archive or a directory brings, as data.

use std::path::PathBuf;

use crate::names::{Arch, KernelRelease, ModuleId};

/// What comes.
#[derive(Debug, Clone)]
pub struct Import {
    /// The module, as its dkms.conf calls it.
    pub id: ModuleId,
    /// The directory to copy its source from; nothing if that is where it belongs already.
    pub(crate) source: Option<PathBuf>,
    /// What was built of it.
    pub(crate) builds: Vec<ImportedBuild>,
    /// Whether it comes from an archive that dkms wrote.
    pub(crate) packed: bool,
}

/// What was built of a module elsewhere, for a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedBuild {
    /// The kernel.
    pub kernel: KernelRelease,
    /// The architecture.
    pub arch: Arch,
    /// The directory with `module/` and `log/`.
    pub dir: PathBuf,
}
