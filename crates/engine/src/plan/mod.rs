//! What is to be done, in order, with the reason for each step. Pure: equal facts and an equal
//! request give an equal plan.

mod arrivals;
mod commands;
mod kernel_wide;
mod order;
mod pairs;
mod removals;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::debts::Debt;
use crate::digest::Digest;
use crate::facts::{Facts, SourceLink, SourcePlace};
use crate::import::ImportedBuild;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::record::Reason;

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A transaction touched these sources and kernels: bring the machine in line with them, and
    /// pay what is owed. Also what the boot unit asks for, with nothing touched.
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
    /// `dkms autoinstall`: every willing module for these kernels, and what is owed.
    Autoinstall {
        /// The kernels.
        kernels: Vec<KernelRelease>,
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
        /// For which kernels; nothing means every one that it is built for (`--all`).
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

    /// Whether it only takes away: then nothing of what a build would need is looked at.
    #[must_use]
    pub fn unmakes(self) -> bool {
        matches!(self, Self::Uninstall | Self::Unbuild | Self::Remove)
    }
}

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
        /// The modules of this plan whose failure makes this one pointless.
        after: Vec<ModuleName>,
        /// The fingerprints of all modules that it builds upon.
        depends: BTreeMap<ModuleName, Digest>,
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
        /// What, where and what to do.
        message: String,
        /// dkms's exit code for it.
        code: u8,
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

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What there is to know.
    pub notes: Vec<Note>,
    /// What the request asks for, as debts: noted before the first step.
    pub owes: BTreeSet<Debt>,
    /// The debts that are paid when every step has been carried out.
    pub settles: BTreeSet<Debt>,
}

/// A request that cannot be carried out at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What, where and what to do.
    pub message: String,
    /// dkms's exit code for it.
    pub code: u8,
}

/// Plans a request.
///
/// # Errors
/// [`Refusal`] where dkms refuses the command as a whole (dkms-behaviour 1.2 and 9).
pub fn make(request: &Request, facts: &Facts) -> Result<Plan, Refusal> {
    let mut planner = Planner::new(facts);
    for problem in &facts.problems {
        planner.plan.notes.push(Note::Problem(problem.clone()));
    }
    match request {
        Request::Sync { sources, kernels } => planner.sync(sources, kernels),
        Request::Depart { sources, kernels, swap } => planner.depart(sources, kernels, *swap),
        Request::Autoinstall { kernels } => planner.autoinstall(kernels)?,
        Request::Match { template, kernel, module, force } => {
            planner.do_as_for(template, kernel, module.as_ref(), *force)?;
        }
        Request::Clear { kernel, only_willing } => planner.clear(kernel, *only_willing),
        Request::Command { verb, module, kernels, force } => {
            planner.command(*verb, module, kernels.as_deref(), *force)?;
        }
    }
    Ok(planner.finish())
}

/// A plan in the making.
struct Planner<'a> {
    facts: &'a Facts,
    plan: Plan,
    /// The fingerprint that each module has, or will have, on a kernel.
    fingerprints: BTreeMap<(ModuleName, KernelRelease), Digest>,
    /// What is being built in this plan.
    building: BTreeSet<(ModuleName, KernelRelease)>,
    /// What will be installed when the plan is carried out.
    will_have: BTreeSet<(ModuleId, KernelRelease)>,
    /// What will not be built any more.
    forgotten: BTreeSet<(ModuleId, KernelRelease)>,
    /// Modules that will be known.
    registering: BTreeSet<ModuleId>,
    /// Kernels to be indexed at the end.
    touched: BTreeSet<KernelRelease>,
}

impl<'a> Planner<'a> {
    fn new(facts: &'a Facts) -> Self {
        Self {
            facts,
            plan: Plan::default(),
            fingerprints: BTreeMap::new(),
            building: BTreeSet::new(),
            will_have: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            registering: BTreeSet::new(),
            touched: BTreeSet::new(),
        }
    }

    fn step(&mut self, action: Action, why: Vec<Reason>) {
        self.plan.steps.push(Step { action, why });
    }

    fn note(&mut self, note: Note) {
        if !self.plan.notes.contains(&note) {
            self.plan.notes.push(note);
        }
    }

    /// Makes a module known, by its source where there is one.
    fn register(&mut self, module: &ModuleId) {
        let known = self.facts.modules.get(module).is_some_and(|m| match m.link {
            SourceLink::Source => true,
            SourceLink::Kept | SourceLink::Mendable => m.source == SourcePlace::Kept,
            SourceLink::None | SourceLink::Broken => false,
        });
        if !known && self.registering.insert(module.clone()) {
            self.step(Action::Register(module.clone()), Vec::new());
        }
    }

    /// One depmod for each kernel, after everything else that concerns it.
    fn finish(mut self) -> Plan {
        let last = |step: &mut Step| matches!(step.action, Action::Sweep(_) | Action::Leave);
        let sweeps: Vec<Step> = self.plan.steps.extract_if(.., last).collect();
        for kernel in std::mem::take(&mut self.touched) {
            if self.facts.kernels.get(&kernel).is_some_and(|k| k.kernel.alive) {
                self.step(Action::Depmod(kernel), Vec::new());
            }
        }
        self.plan.steps.extend(sweeps);
        self.plan
    }
}

impl Step {
    /// Whether it builds, but takes from the cache what was built from equal inputs.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.why.contains(&Reason::Cached)
    }
}

impl Action {
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
