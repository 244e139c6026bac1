//! The parts of a plan: steps that change the machine, and notes for the user.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::dkms_tree::{PendingWork, Placed, Reason};
use crate::facts::ImportedBuild;
use crate::failure::Failure;
use crate::machine::Kernel;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::os::digest::Digest;

/// A step of a plan: one change to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The change to make.
    pub action: Action,
    /// The reasons for the change. Can be empty.
    pub why: Vec<Reason>,
}

/// The change that a step makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Copy a source directory into the source tree.
    ImportSource {
        /// The module whose source is copied.
        module: ModuleId,
        /// The directory to copy into the source tree.
        from: PathBuf,
    },
    /// Copy a build from an unpacked archive into the dkms tree.
    Load {
        /// The module whose build is copied.
        module: ModuleId,
        /// The build to copy.
        build: ImportedBuild,
        /// Whether to replace an existing build. If false, an existing build is kept.
        replace: bool,
    },
    /// Add the module to the dkms tree by creating its source link, `T/M/V/source`.
    Register(ModuleId),
    /// Point the module's source link, `T/M/V/source`, to the kept copy of its source.
    UseKept(ModuleId),
    /// Write a record for a build that dkms made, and restore the kernel's own objects.
    Adopt {
        /// The module that dkms built.
        module: ModuleId,
        /// The kernel for which dkms built the module.
        kernel: KernelRelease,
        /// The fingerprints of the module's dependencies, for the record.
        depends: BTreeMap<ModuleName, Digest>,
    },
    /// Build the module, or restore its build from the cache.
    Build {
        /// The module to build.
        module: ModuleId,
        /// The kernel for which the module is built.
        kernel: KernelRelease,
    },
    /// Install the module's objects, and uninstall those of the version in `replaces`.
    Install {
        /// The module to install.
        module: ModuleId,
        /// The kernel whose directory receives the objects.
        kernel: KernelRelease,
        /// The version to uninstall; `None` if no other version is installed.
        replaces: Option<ModuleId>,
    },
    /// Remove the module's objects from the kernel's directory and run POST_REMOVE.
    Uninstall {
        /// The module to uninstall.
        module: ModuleId,
        /// The kernel from whose directory the objects are removed.
        kernel: KernelRelease,
        /// The modules with other names that contain the same objects. If one of them is not
        /// installed, the step is skipped. Can be empty.
        successors: Vec<ModuleId>,
    },
    /// Delete the module's build for the kernel.
    Unbuild(ModuleId, KernelRelease),
    /// Remove the module from the dkms tree.
    Deregister(ModuleId),
    /// Run depmod for the kernel.
    Depmod(KernelRelease),
    /// Remove the directory of a removed kernel, unless it contains files that depmod did not
    /// write.
    RemoveLeftovers(KernelRelease),
    /// Remove alpm-dkms's own files from the dkms tree.
    Leave,
    /// Report a module that cannot be built or installed.
    Fail {
        /// The module that fails.
        module: ModuleId,
        /// The kernel for which the module fails; `None` if the failure concerns all kernels.
        kernel: Option<KernelRelease>,
        /// The message and the exit code.
        failure: Failure,
    },
}

/// The way to install packages again after pacman was interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reinstallation {
    /// The names of the packages.
    pub packages: Vec<String>,
    /// The files and directories to delete first. While they exist, pacman refuses to install the
    /// packages.
    pub obstacles: Vec<PathBuf>,
}

/// Information for the user that is not a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Modules cannot be built because the kernel has no headers.
    NoHeaders {
        /// The kernel without headers.
        kernel: KernelRelease,
        /// The kernel's package.
        package: Option<String>,
        /// A release of the same package whose headers are installed, which suggests a partial
        /// upgrade.
        other: Option<KernelRelease>,
    },
    /// A command is for a kernel that does not exist.
    NoKernel {
        /// The release for which there is no kernel.
        kernel: KernelRelease,
        /// Whether this is the running kernel, whose files an upgrade has removed. Commands act on
        /// the running kernel by default, so the user may not have named this release.
        running: bool,
        /// The kernels that exist.
        installed: Vec<KernelRelease>,
    },
    /// The link to the headers of a kernel leads nowhere.
    DanglingHeaders {
        /// The kernel without headers.
        kernel: KernelRelease,
        /// The target of the link.
        target: PathBuf,
        /// The kernel's package.
        package: Option<String>,
    },
    /// BUILD_EXCLUSIVE_* excludes the module for this kernel.
    Excluded {
        /// The excluded module.
        module: ModuleId,
        /// The kernel for which the module is excluded.
        kernel: KernelRelease,
        /// The rule that excludes the module.
        why: String,
    },
    /// An earlier build with the same inputs failed, so the build is not repeated.
    KnownFailure {
        /// The module that failed to build.
        module: ModuleId,
        /// The kernel for which the build failed.
        kernel: KernelRelease,
        /// The cause of the failure.
        what: String,
        /// The path of the failed build's log.
        log: std::path::PathBuf,
        /// The version that stays installed; `None` if no version is installed.
        stays: Option<ModuleId>,
    },
    /// Hooks and the boot unit no longer do this work, because all attempts are used up.
    Parked(BTreeSet<PendingWork>),
    /// The kernel has the same module or a newer one, so the module is not installed.
    Declined {
        /// The module that is not installed.
        module: ModuleId,
        /// The kernel that has the module.
        kernel: KernelRelease,
        /// The reason, which names the kernel's own objects.
        why: String,
    },
    /// A module stays installed because the module or version that replaces it is not installed.
    Kept {
        /// The module that stays.
        module: ModuleId,
        /// The kernel for which the module stays installed.
        kernel: KernelRelease,
    },
    /// The kernel is a copy that is kept until the next boot. No package owns it, so it is skipped.
    Copy(KernelRelease),
    /// A source is missing, but no transaction removed it.
    SourceMissing {
        /// The module whose source is missing.
        module: ModuleId,
        /// The name of the missing directory in the source tree.
        dir: String,
    },
    /// A module is held: its source is missing because pacman was interrupted.
    Held {
        /// The module, which stays as it is.
        module: ModuleId,
        /// The way to install the package that contained the source; `None` if it is unknown.
        repair: Option<Reinstallation>,
    },
    /// pacman was interrupted while it installed or removed this kernel or its headers.
    IncompleteKernel {
        /// The kernel, whose modules are left alone.
        kernel: KernelRelease,
        /// The way to install the packages of the kernel; `None` if they are unknown.
        repair: Option<Reinstallation>,
    },
    /// pacman was interrupted while it installed the source in this directory of the source tree.
    IncompleteSource(String),
    /// pacman was interrupted while it installed or removed a package that no other note names.
    IncompletePackage(Reinstallation),
    /// A transaction is still running, so everything that it changes is left alone.
    Running {
        /// The process ID of pacman.
        process: u32,
        /// The kernels and sources that are left to the transaction.
        left: Vec<String>,
    },
    /// The module is not built automatically, because its dkms.conf sets `AUTOINSTALL="no"`.
    NotAutomatic {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
    },
    /// The module is skipped because a dependency is not installed.
    Deferred {
        /// The module that is skipped.
        module: ModuleId,
        /// The kernel for which the module is skipped.
        kernel: KernelRelease,
        /// The name of the missing dependency.
        needs: ModuleName,
    },
    /// A module is not replaced, because an installed module that depends on it cannot be replaced
    /// at the same time.
    Tied {
        /// The new version, which is not installed.
        module: ModuleId,
        /// The kernel for which the new version is not installed.
        kernel: KernelRelease,
        /// The installed module that would have to be replaced, too.
        with: ModuleId,
    },
    /// An object has been changed by hand since it was installed, and stays as it is.
    Changed {
        /// The module that contains the object.
        module: ModuleId,
        /// The kernel for which the object is installed.
        kernel: KernelRelease,
        /// The file of the object.
        file: PathBuf,
    },
    /// The module is already in the requested state.
    Already {
        /// The module on which the command acts.
        module: ModuleId,
        /// The kernel on which the command acts.
        kernel: KernelRelease,
        /// The state: "built", "installed", "not installed" or "not built".
        state: &'static str,
    },
    /// Any other message, such as a problem with reading the facts.
    Problem(String),
}

/// The build of a module for a kernel, and its installation unless only a build was requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The module to build.
    pub module: ModuleId,
    /// The kernel for which the module is built.
    pub kernel: KernelRelease,
    /// The dependencies that the plan builds, installs or finds up to date.
    ///
    /// The job starts after the jobs of these dependencies, and is skipped if one of those jobs
    /// fails.
    pub after: Vec<ModuleName>,
    /// The modules that are installed together with this module. If the build of one of them fails,
    /// none of them is installed for the kernel.
    pub with: BTreeSet<ModuleName>,
    /// The fingerprints of all dependencies, for the build's record.
    pub depends: BTreeMap<ModuleName, Digest>,
    /// The step that builds the module.
    pub build: Step,
    /// The step that installs the module; `None` for `dkms build`.
    pub install: Option<Step>,
}

/// A job, or a step that belongs to no job, identified by its position in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// The step at this index of [`Plan::before`].
    Before(usize),
    /// The job at this index of [`Plan::jobs`], with all its steps.
    Job(usize),
    /// The step at this index of [`Plan::after`].
    After(usize),
}

/// The steps of a run in order, and the notes for the user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps that run one after another before all builds.
    ///
    /// They add modules, and install existing builds that later builds may depend on.
    pub before: Vec<Step>,
    /// The jobs, which may run in parallel.
    pub jobs: Vec<Job>,
    /// The steps that run one after another after all builds.
    ///
    /// They remove replaced versions and run depmod.
    pub after: Vec<Step>,
    /// The notes for the user, in the order in which they are printed.
    pub notes: Vec<Note>,
    /// The requested work, which is recorded as pending before the first step.
    pub notes_pending: BTreeSet<PendingWork>,
    /// The pending work that is finished once all steps have succeeded.
    pub finishes: BTreeSet<PendingWork>,
    /// The recorded transactions whose journals are deleted after the run, as indexes into
    /// `Facts::transactions`. Their unfinished parts are among the pending work.
    pub settles: BTreeSet<usize>,
}

impl Plan {
    /// Returns all tasks, in order.
    pub fn tasks(&self) -> impl Iterator<Item = Task> + use<> {
        let before = (0..self.before.len()).map(Task::Before);
        let jobs = (0..self.jobs.len()).map(Task::Job);
        before.chain(jobs).chain((0..self.after.len()).map(Task::After))
    }

    /// Returns the steps of a task, in order. Empty if the plan has no such task.
    pub fn steps_of(&self, task: Task) -> impl Iterator<Item = &Step> {
        let (first, second) = match task {
            Task::Before(number) => (self.before.get(number), None),
            Task::Job(number) => self
                .jobs
                .get(number)
                .map_or((None, None), |job| (Some(&job.build), job.install.as_ref())),
            Task::After(number) => (self.after.get(number), None),
        };
        first.into_iter().chain(second)
    }

    /// Returns the module that a task replaces, and that stays installed if the task fails.
    #[must_use]
    pub fn replaced_by(&self, task: Task) -> Option<&ModuleId> {
        self.steps_of(task).find_map(|step| match &step.action {
            Action::Install { replaces: Some(old), .. } => Some(old),
            Action::Install { module, kernel, .. } => self.succeeded_by(module, kernel),
            _ => None,
        })
    }

    /// Returns the module with another name that the plan uninstalls from a kernel once `new` is
    /// installed for that kernel.
    fn succeeded_by(&self, new: &ModuleId, kernel: &KernelRelease) -> Option<&ModuleId> {
        self.after.iter().find_map(|step| match &step.action {
            Action::Uninstall { module, kernel: of, successors } => {
                (of == kernel && successors.contains(new)).then_some(module)
            }
            _ => None,
        })
    }

    /// Returns all steps, in order. An installation follows directly after its build.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.tasks().flat_map(|task| self.steps_of(task))
    }

    /// Returns true if the plan has no steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps().next().is_none()
    }
}

impl Note {
    /// Returns the note about an object of `kernel` that has been changed by hand.
    pub(crate) fn changed(kernel: &Kernel, object: &Placed) -> Self {
        Self::Changed {
            module: object.module.clone(),
            kernel: kernel.release.clone(),
            file: kernel.dir.join(&object.path),
        }
    }

    /// Returns the way to install the packages that the note is about; `None` if it names none.
    pub(super) fn repair(&self) -> Option<&Reinstallation> {
        match self {
            Self::Held { repair, .. } | Self::IncompleteKernel { repair, .. } => repair.as_ref(),
            Self::IncompletePackage(repair) => Some(repair),
            _ => None,
        }
    }
}

impl Job {
    /// Returns true if the build is restored from the cache instead of compiled.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.build.is_cached()
    }
}

impl Step {
    /// Returns true if the step restores a build from the cache.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.why.contains(&Reason::Cached)
    }
}

impl Action {
    /// Returns the module and the kernel of a build or an installation, and `None` for all other
    /// actions.
    #[must_use]
    pub fn job(&self) -> Option<(&ModuleId, &KernelRelease)> {
        match self {
            Self::Build { module, kernel } | Self::Install { module, kernel, .. } => {
                Some((module, kernel))
            }
            _ => None,
        }
    }

    /// Returns the entry of pending work for an installation or uninstallation, and `None` for all
    /// other actions.
    #[must_use]
    pub(crate) fn pending_work(&self) -> Option<PendingWork> {
        match self {
            Self::Install { module, kernel, .. } => Some(PendingWork::install(module, kernel)),
            Self::Uninstall { module, kernel, .. } => Some(PendingWork::uninstall(module, kernel)),
            _ => None,
        }
    }

    /// Returns the module that the action concerns, or `None` if it concerns no particular module.
    #[must_use]
    pub fn module(&self) -> Option<&ModuleId> {
        match self {
            Self::Register(module)
            | Self::ImportSource { module, .. }
            | Self::Load { module, .. }
            | Self::UseKept(module)
            | Self::Adopt { module, .. }
            | Self::Build { module, .. }
            | Self::Install { module, .. }
            | Self::Uninstall { module, .. }
            | Self::Unbuild(module, _)
            | Self::Deregister(module)
            | Self::Fail { module, .. } => Some(module),
            Self::Depmod(_) | Self::RemoveLeftovers(_) | Self::Leave => None,
        }
    }

    /// Returns the kernel that the action concerns, or `None` if it concerns no particular kernel.
    #[must_use]
    pub fn kernel(&self) -> Option<&KernelRelease> {
        match self {
            Self::Adopt { kernel, .. }
            | Self::Build { kernel, .. }
            | Self::Install { kernel, .. }
            | Self::Uninstall { kernel, .. }
            | Self::Unbuild(_, kernel)
            | Self::Depmod(kernel)
            | Self::RemoveLeftovers(kernel) => Some(kernel),
            Self::Fail { kernel, .. } => kernel.as_ref(),
            Self::Load { build, .. } => Some(&build.kernel),
            Self::ImportSource { .. }
            | Self::Register(_)
            | Self::UseKept(_)
            | Self::Deregister(_)
            | Self::Leave => None,
        }
    }
}
