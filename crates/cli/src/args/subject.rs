//! The interpreted operands of a command: its module, its kernels and the machine.

use std::path::PathBuf;

use dkms_engine::machine::Machine;
use dkms_engine::names::{Arch, KernelRelease, ModuleId};

/// The module that a command works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A module in the dkms tree or the source tree.
    Module(ModuleId),
    /// A directory with a dkms.conf.
    Directory(PathBuf),
    /// An archive of a module.
    Archive(PathBuf),
}

/// A kernel and the architecture to build for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub kernel: KernelRelease,
    pub arch: Arch,
}

/// The kernels that a command works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelChoice {
    /// `--all`: for `build` and `install`, every kernel with headers; for other commands, every
    /// kernel that the module is built for.
    All,
    /// The kernels given with `-k`, in order, or the running kernel.
    These(Vec<Target>),
}

/// The facts about the machine that are needed to interpret a command line.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// The running kernel (`uname -r`), the default for `-k`.
    pub kernel: String,
    /// The machine's architecture (`uname -m`), the default for `-a`.
    pub arch: Arch,
    /// Whether the user has the rights of root; see [`is_root`](crate::args::machine::is_root).
    pub is_root: bool,
    /// The machine, needed to distinguish modules from files with the same name.
    pub machine: &'a Machine,
}

/// The options of `dkms mktarball`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// Whether to omit the source (`--binaries-only`).
    pub no_source: bool,
    /// Whether to omit the builds (`--source-only`).
    pub no_builds: bool,
    /// The path of the archive (`--archive`); `None` for the default path.
    pub archive: Option<PathBuf>,
}
