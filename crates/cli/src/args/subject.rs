//! What a command is about: a module, kernels, the machine it is typed on.

use std::path::PathBuf;

use dkms_engine::names::{Arch, KernelRelease, ModuleId};
use dkms_engine::trees::Trees;

/// The module that something is done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One that dkms knows, or whose source is in the source tree.
    Module(ModuleId),
    /// The one in this directory, with its dkms.conf.
    Directory(PathBuf),
    /// The one in this archive.
    Archive(PathBuf),
}

/// A kernel and the architecture to build for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The kernel.
    pub kernel: KernelRelease,
    /// The architecture.
    pub arch: Arch,
}

/// For which kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelChoice {
    /// For `build` and `install` all that have headers, else all that the module is built for.
    All,
    /// These, in order.
    These(Vec<Target>),
}

/// The machine that a command without `-k` and `-a` means.
#[derive(Debug, Clone)]
pub struct Here {
    /// What `uname -r` prints.
    pub kernel: String,
    /// What `uname -m` prints.
    pub arch: Arch,
    /// Whether it is root who asks, as far as that matters.
    pub is_root: bool,
    /// Where modules are: one that is there is no file of the same name.
    pub trees: Trees,
}

/// What `dkms mktarball` leaves out and where it writes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wrapping {
    /// `--binaries-only`
    pub no_source: bool,
    /// `--source-only`
    pub no_builds: bool,
    /// `--archive`
    pub archive: Option<PathBuf>,
}
