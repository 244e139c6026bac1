//! Turns a request and facts into a plan: ordered steps, with the reasons for each.
//!
//! Planning is pure: equal facts and an equal request give an equal plan.

mod arrivals;
mod commands;
mod display;
mod groups;
mod kernel_commands;
mod module_for_kernel;
mod order;
mod outer_run;
mod refusals;
mod removals;
mod request;
mod step;
mod successors;
#[cfg(test)]
mod tests;
mod transactions;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use refusals::headers_note;
pub use request::{Request, Verb};
pub use step::{Action, Job, Note, Plan, Reinstallation, Step, Task};

use crate::dkms_tree::{PendingWork, Reason};
use crate::facts::{Facts, SourceLink, SourcePlace};
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::os::digest::Digest;

/// Returns the plan that fulfils `request` on the machine that `facts` describe.
///
/// # Errors
/// [`Failure`] if dkms rejects the whole command (dkms-behaviour 1.2 and 9).
pub fn make(request: &Request, facts: &Facts) -> Result<Plan, Failure> {
    let mut planner = Planner::new(facts);
    for problem in &facts.problems {
        planner.plan.notes.push(Note::Problem(problem.clone()));
    }
    for about in facts.kernels.values() {
        for object in &about.replaced {
            planner.note(Note::changed(&about.kernel, object));
        }
    }
    match request {
        Request::Sync { arrived, departed, headers } => {
            planner.reinstalled = (arrived.sources.clone(), headers.clone());
            planner.is_automatic = true;
            planner.sync(arrived, departed);
        }
        Request::Depart { sources, kernels, swap } => planner.depart(sources, kernels, *swap),
        Request::Autoinstall { kernels, only } => {
            planner.autoinstall(kernels.as_deref(), *only)?;
        }
        Request::Match { template, kernel, module, force } => {
            planner.do_as_for(template, kernel, module.as_ref(), *force)?;
        }
        Request::Clear { kernel, only_willing } => planner.clear(kernel, *only_willing),
        Request::Command { verb, module, kernels, force } => {
            planner.command(*verb, module, kernels.as_deref(), *force)?;
        }
    }
    if matches!(request, Request::Sync { .. } | Request::Autoinstall { .. }) {
        planner.note_interruptions();
    }
    Ok(planner.finish())
}

/// Returns the notes about kernels, sources and packages that interrupted transactions have left
/// incomplete.
pub(crate) fn interruptions(facts: &Facts) -> Vec<Note> {
    let mut planner = Planner::new(facts);
    planner.note_interruptions();
    planner.plan.notes
}

/// A plan that is being made.
struct Planner<'a> {
    facts: &'a Facts,
    plan: Plan,
    /// The fingerprint that each module will have for each kernel once the plan has been carried
    /// out.
    fingerprints: BTreeMap<(ModuleName, KernelRelease), Digest>,
    /// The modules that this plan builds.
    building: BTreeSet<(ModuleName, KernelRelease)>,
    /// The modules that this plan installs, and those that it finds up to date.
    will_have: BTreeSet<(ModuleId, KernelRelease)>,
    /// The builds that this plan deletes.
    forgotten: BTreeSet<(ModuleId, KernelRelease)>,
    /// The modules that this plan adds.
    registering: BTreeSet<ModuleId>,
    /// The modules whose sources have departed.
    gone: BTreeSet<ModuleId>,
    /// The kernels for which depmod must run at the end.
    touched: BTreeSet<KernelRelease>,
    /// The source directories that the transaction installed or replaced, and the kernels whose
    /// headers it installed or replaced. Failed builds that depend on these sources or headers are
    /// retried.
    reinstalled: (BTreeSet<String>, BTreeSet<KernelRelease>),
    /// Whether a hook or a systemd unit makes the request. If so, parked work stays parked.
    is_automatic: bool,
    /// The parked work that the request would have included.
    parked: BTreeSet<PendingWork>,
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
            gone: BTreeSet::new(),
            touched: BTreeSet::new(),
            reinstalled: <(BTreeSet<_>, BTreeSet<_>)>::default(),
            is_automatic: facts.by_systemd,
            parked: BTreeSet::new(),
        }
    }

    /// Adds a step that runs before all builds.
    fn before_builds(&mut self, action: Action, why: Vec<Reason>) {
        self.plan.before.push(Step { action, why });
    }

    /// Adds a step that runs after all builds.
    fn after_builds(&mut self, action: Action, why: Vec<Reason>) {
        self.plan.after.push(Step { action, why });
    }

    fn note(&mut self, note: Note) {
        if !self.plan.notes.contains(&note) {
            self.plan.notes.push(note);
        }
    }

    /// Returns true if the request is automatic, and all attempts at `work` with these inputs are
    /// used up. `inputs` is the fingerprint of the inputs.
    fn is_used_up(&self, work: &PendingWork, inputs: Digest) -> bool {
        let attempts = self.facts.attempts.get(work).filter(|_| self.is_automatic);
        attempts.is_some_and(|attempts| attempts.inputs == inputs && attempts.are_used_up())
    }

    /// Plans to add a module to the dkms tree, unless the module is already added.
    fn register(&mut self, module: &ModuleId) {
        let known = self.facts.modules.get(module).is_some_and(|m| match m.link {
            SourceLink::Source => true,
            SourceLink::Kept | SourceLink::Mendable => m.source == SourcePlace::Kept,
            SourceLink::None | SourceLink::Broken => false,
        });
        if !known && self.registering.insert(module.clone()) {
            self.before_builds(Action::Register(module.clone()), Vec::new());
        }
    }

    /// Adds a depmod step for each touched kernel that is installed, and a note on the parked work.
    /// Returns the plan.
    ///
    /// depmod runs after all steps that change the kernel's modules.
    fn finish(mut self) -> Plan {
        if !self.parked.is_empty() {
            self.note(Note::Parked(self.parked.clone()));
        }
        let last =
            |step: &mut Step| matches!(step.action, Action::RemoveLeftovers(_) | Action::Leave);
        let sweeps: Vec<Step> = self.plan.after.extract_if(.., last).collect();
        for kernel in std::mem::take(&mut self.touched) {
            if self.facts.kernels.get(&kernel).is_some_and(|k| k.kernel.alive) {
                let outdated = self.facts.index_outdated(&kernel);
                let why = outdated.then_some(Reason::Index).into_iter().collect();
                self.after_builds(Action::Depmod(kernel), why);
            }
        }
        self.plan.after.extend(sweeps);
        self.plan
    }
}
