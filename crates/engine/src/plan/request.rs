//! The requests for which plans are made.

use std::collections::BTreeSet;

use crate::facts::Subjects;
use crate::names::{KernelRelease, ModuleId, ModuleName};

/// A request from a hook, the boot unit or a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Update the modules of the sources and kernels that a transaction changed, and finish pending
    /// work.
    ///
    /// The boot unit makes this request without sources and kernels.
    Sync {
        /// The sources and kernels that the transaction installed or replaced.
        arrived: Subjects,
        /// The sources and kernels that the transaction removed. Those that still exist stay.
        departed: Subjects,
        /// The kernels whose headers the transaction installed or replaced. Failed builds for these
        /// kernels are retried, as are failed builds of the sources that arrived.
        headers: BTreeSet<KernelRelease>,
    },
    /// Clean up before a transaction that removes alpm-dkms itself.
    ///
    /// Removes the modules of all sources and kernels that the transaction will remove, because the
    /// hooks of alpm-dkms cannot run afterwards. Also removes the files of alpm-dkms.
    Depart {
        /// The names of the source directories that the transaction will remove.
        sources: BTreeSet<String>,
        /// The releases of the kernels that the transaction will remove.
        kernels: BTreeSet<KernelRelease>,
        /// Whether another package that provides dkms replaces alpm-dkms. If so, all modules stay
        /// as they are.
        swap: bool,
    },
    /// `dkms autoinstall`: install every module with AUTOINSTALL=yes, and finish pending work.
    Autoinstall {
        /// The kernels for which to install modules. `None` (`--all`) means every installed kernel
        /// with headers.
        kernels: Option<Vec<KernelRelease>>,
        /// Whether to leave pending work for other kernels pending, as with `-k`.
        only: bool,
    },
    /// `dkms match`: for `kernel`, install the modules that are installed for `template`.
    Match {
        /// The kernel whose installed modules are looked up.
        template: KernelRelease,
        /// The kernel for which the modules are installed.
        kernel: KernelRelease,
        /// The name of the only module to install; `None` means every module that is installed for
        /// `template`.
        module: Option<ModuleName>,
        /// Whether `--force` was given.
        force: bool,
    },
    /// `dkms kernel_preinst` and `kernel_prerm`: delete the builds for a kernel.
    Clear {
        /// The kernel whose builds are deleted.
        kernel: KernelRelease,
        /// Whether to delete only the builds of modules with AUTOINSTALL=yes.
        only_willing: bool,
    },
    /// `dkms add`, `build`, `install`, `uninstall`, `unbuild` or `remove` for one module.
    Command {
        /// The command to carry out.
        verb: Verb,
        /// The module on which the command acts.
        module: ModuleId,
        /// The kernels on which the command acts. `None` means `--all`.
        ///
        /// For `build` and `install`, this means every installed kernel that has headers or an
        /// existing build of the module. For the other commands, it means every kernel for which
        /// the module is built or installed.
        kernels: Option<Vec<KernelRelease>>,
        /// Whether `--force` was given.
        force: bool,
    },
}

/// A command that acts on one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Add the module to the dkms tree.
    Add,
    /// Compile the module, and keep the objects in the dkms tree.
    Build,
    /// Build the module if necessary, and copy the objects into the kernel's directory.
    Install,
    /// Remove the module's objects from the kernel's directory.
    Uninstall,
    /// Uninstall the module, and delete its build.
    Unbuild,
    /// Unbuild the module, and remove it from the dkms tree once it has no builds left.
    Remove,
}

impl Verb {
    /// Returns the name of the command, such as `install`.
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

    /// Returns true for `uninstall`, `unbuild` and `remove`, which need no build inputs.
    #[must_use]
    pub fn unmakes(self) -> bool {
        matches!(self, Self::Uninstall | Self::Unbuild | Self::Remove)
    }
}
