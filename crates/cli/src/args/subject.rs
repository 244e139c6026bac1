//! The operands of a command, interpreted: a module, kernels, the machine.

use std::path::PathBuf;

use dkms_engine::machine::Trees;
use dkms_engine::names::{Arch, KernelRelease, ModuleId};

/// The module that a command works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A module that is added, or whose source is in the source tree.
    Module(ModuleId),
    /// The module in this directory, which has a dkms.conf.
    Directory(PathBuf),
    /// The module in this archive.
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

/// The kernels that a command works for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelChoice {
    /// For `build` and `install` all with headers, otherwise all that the module is built for.
    All,
    /// These, in order.
    These(Vec<Target>),
}

/// The defaults of a command line without `-k` and `-a`, and what else it depends on.
#[derive(Debug, Clone)]
pub struct Context {
    /// The running kernel, as printed by `uname -r`.
    pub kernel: String,
    /// The architecture, as printed by `uname -m`.
    pub arch: Arch,
    /// Whether the user has the rights of root on the machine.
    pub is_root: bool,
    /// The trees, to tell modules from files of the same name.
    pub trees: Trees,
}

/// What `dkms mktarball` leaves out, and the file that it writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// `--binaries-only`
    pub no_source: bool,
    /// `--source-only`
    pub no_builds: bool,
    /// `--archive`
    pub archive: Option<PathBuf>,
}
