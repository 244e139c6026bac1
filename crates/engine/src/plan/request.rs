//! What can be asked for.

use std::collections::BTreeSet;

use crate::names::{KernelRelease, ModuleId, ModuleName};

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A transaction touched these sources and kernels: bring the machine in line with them, and
    /// finish pending work. Also what the boot unit asks for, with nothing touched.
    Sync {
        /// Directories of the source tree, `name-version`.
        sources: BTreeSet<String>,
        /// Kernel releases.
        kernels: BTreeSet<KernelRelease>,
    },
    /// We are about to be removed ourselves, and no hook of ours runs after that: remove now what
    /// the transaction takes along, and our own files.
    Depart {
        /// Directories of the source tree that are being removed; they are still there.
        sources: BTreeSet<String>,
        /// Kernels that are being removed; they are still there.
        kernels: BTreeSet<KernelRelease>,
        /// Whether another dkms takes our place: then it finds every module as it is.
        swap: bool,
    },
    /// `dkms autoinstall`: every willing module for these kernels, and pending work.
    Autoinstall {
        /// The kernels; `None` means every installed kernel with headers (`--all`).
        kernels: Option<Vec<KernelRelease>>,
    },
    /// `dkms match`: what is installed for one kernel is installed for another, too.
    Match {
        /// The kernel that has it.
        template: KernelRelease,
        /// The kernel that gets it.
        kernel: KernelRelease,
        /// Only this module.
        module: Option<ModuleName>,
        /// `--force`.
        force: bool,
    },
    /// `dkms kernel_preinst` and `kernel_prerm`: what was built for a kernel is forgotten.
    Clear {
        /// The kernel.
        kernel: KernelRelease,
        /// Only of those modules that autoinstall brings back.
        only_willing: bool,
    },
    /// `dkms add`, `build`, `install`, `uninstall`, `unbuild` or `remove` of one module.
    Command {
        /// Which of them.
        verb: Verb,
        /// The module.
        module: ModuleId,
        /// The kernels. `None` (`--all`) means every installed kernel with headers for `build` and
        /// `install`, and every kernel that the module is built for otherwise.
        kernels: Option<Vec<KernelRelease>>,
        /// `--force`.
        force: bool,
    },
}

/// A command on one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Make it known.
    Add,
    /// Compile, and keep the result in the dkms tree.
    Build,
    /// Build, and place the objects.
    Install,
    /// Take the objects out of the kernel's directory.
    Uninstall,
    /// Uninstall, and forget the result.
    Unbuild,
    /// Unbuild, and forget the module once nothing is built of it.
    Remove,
}

impl Verb {
    /// How it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Build => "build",
            Self::Install => "install",
            Self::Uninstall => "uninstall",
            Self::Unbuild => "unbuild",
            Self::Remove => "remove",
        }
    }

    /// Returns true if it only removes: then nothing that a build needs is read.
    #[must_use]
    pub fn unmakes(self) -> bool {
        matches!(self, Self::Uninstall | Self::Unbuild | Self::Remove)
    }
}
