//! The parts of a plan: steps that change the machine, and notes for the user.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::dkms_tree::{PendingWork, Reason};
use crate::facts::ImportedBuild;
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::os::digest::Digest;

/// One change to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The change.
    pub action: Action,
    /// The reasons; may be empty.
    pub why: Vec<Reason>,
}

/// The change that a step makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Copy a source directory into the source tree.
    TakeIn {
        /// The module.
        module: ModuleId,
        /// The directory to copy.
        from: PathBuf,
    },
    /// Import a build from an archive.
    Load {
        /// The module.
        module: ModuleId,
        /// The build.
        build: ImportedBuild,
        /// Whether it replaces an existing build.
        replace: bool,
    },
    /// Add the module: create `T/M/V/source`.
    Register(ModuleId),
    /// Point `T/M/V/source` to the kept copy of a removed source.
    UseKept(ModuleId),
    /// Write a record for a build by dkms, and restore the kernel's own objects.
    Adopt {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
        /// The fingerprints of its dependencies.
        depends: BTreeMap<ModuleName, Digest>,
    },
    /// Build the module.
    Build {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
    },
    /// Install the objects, and uninstall those of `replaces`.
    Install {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
        /// The version installed until then.
        replaces: Option<ModuleId>,
    },
    /// Remove the objects from the kernel's directory and run POST_REMOVE.
    Uninstall(ModuleId, KernelRelease),
    /// Delete the build.
    Unbuild(ModuleId, KernelRelease),
    /// Remove the module from the dkms tree.
    Deregister(ModuleId),
    /// Run depmod for the kernel.
    Depmod(KernelRelease),
    /// Remove the rest of a removed kernel's directory.
    Sweep(KernelRelease),
    /// Remove our own files from the dkms tree.
    Leave,
    /// Report a module that cannot be built or installed.
    Fail {
        /// The module.
        module: ModuleId,
        /// The kernel; `None` if the failure concerns all kernels.
        kernel: Option<KernelRelease>,
        /// The failure.
        failure: Failure,
    },
}

/// Information for the user that is not a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Modules are wanted for a kernel without headers.
    NoHeaders {
        /// The kernel.
        kernel: KernelRelease,
        /// The package, from the pkgbase file.
        pkgbase: Option<String>,
        /// A release of the same pkgbase that has headers: a sign of a partial upgrade.
        other: Option<KernelRelease>,
    },
    /// BUILD_EXCLUSIVE_* excludes the module for this kernel.
    Excluded {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
        /// The rule.
        why: String,
    },
    /// The build failed before with the same inputs and is not retried.
    KnownFailure {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
        /// The cause of the failure.
        what: String,
        /// The log of that build.
        log: std::path::PathBuf,
        /// The older version, which stays installed.
        stays: Option<ModuleId>,
    },
    /// An old version stays installed because the new one could not be built.
    Kept {
        /// The old version.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
    },
    /// A kernel directory that no package owns. It is not changed.
    Copy(KernelRelease),
    /// A source is missing, but no transaction removed it.
    SourceMissing {
        /// The module.
        module: ModuleId,
        /// The name of its directory in the source tree.
        dir: String,
    },
    /// AUTOINSTALL="no".
    NotAutomatic(ModuleId),
    /// A dependency has not been added.
    Deferred {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
        /// The dependency.
        needs: ModuleName,
    },
    /// The module is already in the requested state.
    Already {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
        /// The state: "built", "installed", "not installed" or "not built".
        state: &'static str,
    },
    /// A problem while reading facts, as a message.
    Problem(String),
}

/// The build of a module for a kernel, and its installation if the plan includes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The module.
    pub module: ModuleId,
    /// The kernel.
    pub kernel: KernelRelease,
    /// The dependencies that this plan builds, installs or finds up to date. Their jobs run first;
    /// if one of their steps fails, this job is skipped.
    pub after: Vec<ModuleName>,
    /// The fingerprints of all dependencies.
    pub depends: BTreeMap<ModuleName, Digest>,
    /// The step that builds it.
    pub build: Step,
    /// The step that installs it; `None` for `dkms build`.
    pub install: Option<Step>,
}

/// A unit of progress: a job, or a step outside all jobs. It is named by its position in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// A step of [`Plan::before`].
    Before(usize),
    /// A job of [`Plan::jobs`], with all its steps.
    Job(usize),
    /// A step of [`Plan::after`].
    After(usize),
}

/// The steps of a run in order, and the notes for the user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps before all builds, which run in sequence. They add modules and install existing
    /// builds, which later builds may need.
    pub before: Vec<Step>,
    /// The jobs, which run in parallel.
    pub jobs: Vec<Job>,
    /// The steps after all builds, which run in sequence. They remove replaced versions and run
    /// depmod.
    pub after: Vec<Step>,
    /// The notes for the user.
    pub notes: Vec<Note>,
    /// The requested work, recorded as pending before the first step.
    pub notes_pending: BTreeSet<PendingWork>,
    /// The pending work that is finished when all steps have succeeded.
    pub finishes: BTreeSet<PendingWork>,
}

impl Plan {
    /// Returns all tasks, in order.
    pub fn tasks(&self) -> impl Iterator<Item = Task> + use<> {
        let before = (0..self.before.len()).map(Task::Before);
        let jobs = (0..self.jobs.len()).map(Task::Job);
        before.chain(jobs).chain((0..self.after.len()).map(Task::After))
    }

    /// Returns the steps of a task, in order; none if the plan has no such task.
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

    /// Returns all steps, in order. Each build is followed by the installation of its objects.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.tasks().flat_map(|task| self.steps_of(task))
    }

    /// Returns true if the plan has no steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps().next().is_none()
    }
}

impl Job {
    /// Returns true if its build is restored from the cache.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.build.is_cached()
    }
}

impl Step {
    /// Returns true for a build that is restored from the cache.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.why.contains(&Reason::Cached)
    }
}

impl Action {
    /// Returns the module and kernel of a step that builds or installs.
    #[must_use]
    pub fn job(&self) -> Option<(&ModuleId, &KernelRelease)> {
        match self {
            Self::Build { module, kernel } | Self::Install { module, kernel, .. } => {
                Some((module, kernel))
            }
            _ => None,
        }
    }

    /// Returns the module that it concerns.
    #[must_use]
    pub fn module(&self) -> Option<&ModuleId> {
        match self {
            Self::Register(module)
            | Self::TakeIn { module, .. }
            | Self::Load { module, .. }
            | Self::UseKept(module)
            | Self::Adopt { module, .. }
            | Self::Build { module, .. }
            | Self::Install { module, .. }
            | Self::Uninstall(module, _)
            | Self::Unbuild(module, _)
            | Self::Deregister(module)
            | Self::Fail { module, .. } => Some(module),
            Self::Depmod(_) | Self::Sweep(_) | Self::Leave => None,
        }
    }

    /// Returns the kernel that it concerns.
    #[must_use]
    pub fn kernel(&self) -> Option<&KernelRelease> {
        match self {
            Self::Adopt { kernel, .. }
            | Self::Build { kernel, .. }
            | Self::Install { kernel, .. }
            | Self::Uninstall(_, kernel)
            | Self::Unbuild(_, kernel)
            | Self::Depmod(kernel)
            | Self::Sweep(kernel) => Some(kernel),
            Self::Fail { kernel, .. } => kernel.as_ref(),
            Self::Load { build, .. } => Some(&build.kernel),
            Self::TakeIn { .. }
            | Self::Register(_)
            | Self::UseKept(_)
            | Self::Deregister(_)
            | Self::Leave => None,
        }
    }
}
