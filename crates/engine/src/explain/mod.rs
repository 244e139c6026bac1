//! Explains the state of a module for each kernel.

mod compiler;
mod failure;
mod notes;
mod versions;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::dkms_tree::{KnownFailure, PendingWork};
use crate::facts::{self, Facts, Scope, SourceLink, Subjects};
use crate::failure::Failure;
use crate::machine::Machine;
use crate::names::{KernelRelease, ModuleId, ModuleName, ModuleVersion};
use crate::plan::{self, Note, Plan, Request};

pub use failure::{ExplainedFailure, LogExcerpt, NumberedLine};

/// The state of a module for a kernel, with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The name of the module.
    pub module: ModuleName,
    /// The version of the module.
    pub version: ModuleVersion,
    /// The kernel.
    pub kernel: KernelRelease,
    /// The state.
    pub state: ModuleState,
    /// The reasons for the state, and the next steps. Each text can have several lines.
    pub notes: Vec<String>,
    /// The failure of the latest build, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<ExplainedFailure>,
}

/// The state of a module for a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleState {
    /// The objects are in the kernel's directory.
    Installed,
    /// The latest build failed because of the module.
    Failed,
    /// The installation is pending.
    Pending,
    /// The installation is pending, but hooks and the boot unit no longer retry it.
    Parked,
    /// The module is built but not installed.
    Built,
    /// The module is in the dkms tree but not built for the kernel.
    Added,
    /// Only the source is present.
    NotAdded,
}

impl Explanation {
    /// Returns the module with its version.
    #[must_use]
    pub fn id(&self) -> ModuleId {
        ModuleId { name: self.module.clone(), version: self.version.clone() }
    }
}

impl ModuleState {
    /// Returns the name of the state.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Failed => "failed",
            Self::Pending => "pending",
            Self::Parked => "parked",
            Self::Built => "built, not installed",
            Self::Added => "added, not built",
            Self::NotAdded => "not added",
        }
    }
}

/// Explains the state of the module `name`. `version` and `kernels` restrict the explanation;
/// without them, it covers every version and every installed kernel. Takes no lock and changes
/// nothing except stored digests.
///
/// # Errors
/// [`Failure`] with exit code 3 if there is no such module.
pub fn explain(
    machine: &Machine,
    name: &ModuleName,
    version: Option<&ModuleVersion>,
    kernels: Option<&[KernelRelease]>,
) -> Result<Vec<Explanation>, Failure> {
    let scope =
        Scope { kernels: kernels.map(|these| these.iter().cloned().collect()), ..Scope::default() };
    let facts = facts::read(machine, &scope);
    let versions = facts
        .modules
        .keys()
        .filter(|id| id.name == *name && version.is_none_or(|version| id.version == *version));
    let versions: Vec<&ModuleId> = versions.collect();
    if versions.is_empty() {
        let module =
            version.map_or_else(|| name.to_string(), |version| format!("{name}/{version}"));
        let message = format!("{module}: neither added nor in {}", machine.trees.source.display());
        return Err(Failure::new(3, message).with_hint("see: dkms status"));
    }
    let alive = || alive(&facts);
    let kernels = kernels.map_or_else(alive, |these| these.iter().cloned().collect());
    explain_with(machine, &facts, &versions, &kernels)
}

/// Explains the state of every module in the dkms tree for every installed kernel (see
/// [`explain`]).
///
/// Assumes that headers in a kernel's own directory belong to a package, which saves time.
///
/// # Errors
/// See [`explain`].
pub fn explain_all(machine: &Machine) -> Result<Vec<Explanation>, Failure> {
    let facts = facts::read(machine, &Scope { trusts_packages: true, ..Scope::default() });
    let added = facts.modules.iter().filter(|(_, module)| module.is_registered());
    let versions: Vec<&ModuleId> = added.map(|(id, _)| id).collect();
    explain_with(machine, &facts, &versions, &alive(&facts))
}

fn alive(facts: &Facts) -> BTreeSet<KernelRelease> {
    facts.kernels.keys().filter(|kernel| facts.is_alive(kernel)).cloned().collect()
}

fn explain_with(
    machine: &Machine,
    facts: &Facts,
    versions: &[&ModuleId],
    kernels: &BTreeSet<KernelRelease>,
) -> Result<Vec<Explanation>, Failure> {
    // The plan for a transaction that changes these kernels contains the reason for each module's
    // state.
    let arrived = Subjects { sources: BTreeSet::new(), kernels: kernels.clone() };
    let (departed, headers) = (Subjects::default(), BTreeSet::new());
    let plan = plan::make(&Request::Sync { arrived, departed, headers }, facts)?;
    let explanation = |id: &ModuleId, kernel: &KernelRelease| {
        let failure = failure::of(machine, facts, id, kernel);
        let state = state(machine, facts, &plan, id, kernel);
        let notes = notes::of(facts, &plan, id, kernel, state, failure.is_some());
        Explanation {
            module: id.name.clone(),
            version: id.version.clone(),
            kernel: kernel.clone(),
            state,
            notes,
            failure,
        }
    };
    let of_kernel = |kernel| versions.iter().map(move |id| (*id, kernel));
    Ok(kernels.iter().flat_map(of_kernel).map(|(id, kernel)| explanation(id, kernel)).collect())
}

fn state(
    machine: &Machine,
    facts: &Facts,
    plan: &Plan,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> ModuleState {
    let path = KnownFailure::path(&machine.trees, id, kernel, &machine.arch);
    let is_failed = || KnownFailure::read(&path).is_some_and(|failure| !failure.transient);
    let work = PendingWork::install(id, kernel);
    let is_pending = facts.pending.contains(&work);
    let is_parked = |note: &Note| matches!(note, Note::Parked(works) if works.contains(&work));
    if facts.is_installed(id, kernel) {
        ModuleState::Installed
    } else if plan.notes.iter().any(is_parked) {
        ModuleState::Parked
    } else if is_failed() {
        ModuleState::Failed
    } else if is_pending {
        ModuleState::Pending
    } else if facts.built(id, kernel).is_some() {
        ModuleState::Built
    } else if facts.modules.get(id).is_some_and(|module| module.link != SourceLink::None) {
        ModuleState::Added
    } else {
        ModuleState::NotAdded
    }
}
