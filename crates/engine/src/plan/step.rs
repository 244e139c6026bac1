//! The parts of a plan: steps that change the machine, and notes for the user.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::dkms_tree::{PendingWork, Reason};
use crate::facts::ImportedBuild;
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::os::digest::Digest;

/// One change of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// Why.
    pub why: Vec<Reason>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Copy a source from elsewhere into the source tree.
    TakeIn {
        /// The module.
        module: ModuleId,
        /// The directory to copy.
        from: PathBuf,
    },
    /// Take over what was built elsewhere.
    Load {
        /// The module.
        module: ModuleId,
        /// What was built.
        build: ImportedBuild,
        /// Whether it takes the place of what is there.
        replace: bool,
    },
    /// Make the module known: `T/M/V/source`.
    Register(ModuleId),
    /// Lead `T/M/V/source` to the copy that was kept of a source that is gone.
    UseKept(ModuleId),
    /// Write our record beside what dkms built, and put back the kernel's own objects.
    Adopt {
        /// The module.
        module: ModuleId,
        /// For this kernel.
        kernel: KernelRelease,
        /// The fingerprints of all modules that it builds upon.
        depends: BTreeMap<ModuleName, Digest>,
    },
    /// Compile.
    Build {
        /// The module.
        module: ModuleId,
        /// For this kernel.
        kernel: KernelRelease,
    },
    /// Place the objects; the objects and the scripts of `replaces` go.
    Install {
        /// The module.
        module: ModuleId,
        /// For this kernel.
        kernel: KernelRelease,
        /// The version that is installed until then.
        replaces: Option<ModuleId>,
    },
    /// Take the objects out of the kernel's directory and run POST_REMOVE.
    Uninstall(ModuleId, KernelRelease),
    /// Forget what was built.
    Unbuild(ModuleId, KernelRelease),
    /// Forget the module.
    Deregister(ModuleId),
    /// Index the kernel's modules.
    Depmod(KernelRelease),
    /// Remove what is left of a kernel's directory.
    Sweep(KernelRelease),
    /// Remove our own files from the dkms tree.
    Leave,
    /// Nothing can be done for this module.
    Fail {
        /// The module.
        module: ModuleId,
        /// For this kernel; nothing if for none.
        kernel: Option<KernelRelease>,
        /// Why not.
        failure: Failure,
    },
}

/// Something to know that is not a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Modules were wanted for a kernel that has no headers.
    NoHeaders {
        /// The kernel.
        kernel: KernelRelease,
        /// Its package, from the pkgbase file.
        pkgbase: Option<String>,
        /// Headers of the same pkgbase in another release: a partial upgrade.
        other: Option<KernelRelease>,
    },
    /// BUILD_EXCLUSIVE_* keeps the module from this kernel.
    Excluded {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
        /// Which rule.
        why: String,
    },
    /// The same inputs failed before; nothing was tried again.
    KnownFailure {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
        /// What went wrong then.
        what: String,
        /// The log of that build.
        log: std::path::PathBuf,
        /// The older version that stays installed.
        stays: Option<ModuleId>,
    },
    /// An old version stays on a kernel, since the new one could not be built for it.
    Kept {
        /// The old version.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
    },
    /// A kernel directory that no package owns any more: left alone.
    Copy(KernelRelease),
    /// A source is missing that no transaction took away.
    SourceMissing {
        /// The module.
        module: ModuleId,
        /// Its directory in the source tree.
        dir: String,
    },
    /// AUTOINSTALL="no".
    NotAutomatic(ModuleId),
    /// It needs a module that dkms does not know (yet).
    Deferred {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
        /// What it needs.
        needs: ModuleName,
    },
    /// There was nothing to do for this module.
    Already {
        /// The module.
        module: ModuleId,
        /// The kernel.
        kernel: KernelRelease,
        /// "built", "installed", "not installed", "not built".
        state: &'static str,
    },
    /// Something that could not be read.
    Problem(String),
}

/// A module to be built for a kernel and, if the plan says so, installed as soon as it is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The module.
    pub module: ModuleId,
    /// The kernel that it is built for.
    pub kernel: KernelRelease,
    /// The modules that it is built upon and that this plan builds, installs or finds up to date: if
    /// one of them has a job, that comes first; if a step of one fails, this job is skipped.
    pub after: Vec<ModuleName>,
    /// The fingerprints of all modules that it is built upon.
    pub depends: BTreeMap<ModuleName, Digest>,
    /// The step that builds it.
    pub build: Step,
    /// The step that installs it.
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

/// What is to be done, in the order in which it is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps before all builds, in sequence. They add modules and install existing builds,
    /// which later builds may need.
    pub before: Vec<Step>,
    /// The builds, which run side by side.
    pub jobs: Vec<Job>,
    /// The steps after all builds, in sequence. They remove replaced versions, and index the
    /// kernels' modules.
    pub after: Vec<Step>,
    /// What there is to know.
    pub notes: Vec<Note>,
    /// What the request asks for, noted as pending before the first step.
    pub notes_pending: BTreeSet<PendingWork>,
    /// The pending work that is finished when every step has been carried out.
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

    /// Returns true if nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps().next().is_none()
    }
}

impl Job {
    /// Returns true if what it would build is taken from the cache.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.build.is_cached()
    }
}

impl Step {
    /// Returns true if it builds, but takes what was built from equal inputs from the cache.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.why.contains(&Reason::Cached)
    }
}

impl Action {
    /// Returns the module and the kernel of the job that it belongs to, if it builds or installs.
    #[must_use]
    pub fn job(&self) -> Option<(&ModuleId, &KernelRelease)> {
        match self {
            Self::Build { module, kernel } | Self::Install { module, kernel, .. } => {
                Some((module, kernel))
            }
            _ => None,
        }
    }

    /// The module it is about.
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

    /// The kernel it is about.
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
