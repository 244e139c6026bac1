//! Carries out a plan on facts, as `act` does on a machine.

use super::*;
use crate::dkms_tree::{Condition, Placed};

/// Returns the facts after a run in which the jobs with the indexes `failing` fail.
pub fn carry_out(facts: &Facts, plan: &Plan, failing: &BTreeSet<usize>) -> Facts {
    let mut run = Run(facts.clone());
    for task in plan.tasks() {
        match task {
            Task::Job(number) if failing.contains(&number) => {}
            Task::Job(number) => {
                let job = &plan.jobs[number];
                run.build(&job.module, &job.kernel, &job.depends);
                job.install.iter().for_each(|step| run.perform(&step.action));
            }
            _ => plan.steps_of(task).for_each(|step| run.perform(&step.action)),
        }
    }
    let Run(mut facts) = run;
    let is_covered = |work: &PendingWork| {
        matches!(work, PendingWork::Transaction { .. }) && !plan.notes_pending.is_empty()
    };
    facts.pending.extend(plan.notes_pending.iter().cloned());
    facts.pending.retain(|work| !plan.finishes.contains(work) && !is_covered(work));
    let mut number = 0..;
    facts.transactions.retain(|_| !plan.settles.contains(&number.next().unwrap()));
    facts
}

struct Run(Facts);

impl Run {
    fn pair(&mut self, id: &ModuleId, kernel: &KernelRelease) -> &mut Pair {
        let module = self.0.modules.get_mut(id).unwrap();
        module.pairs.entry(kernel.clone()).or_default()
    }

    fn build(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        depends: &BTreeMap<crate::names::ModuleName, Digest>,
    ) {
        let pair = self.pair(id, kernel);
        let mut inputs = pair.inputs.clone().unwrap();
        inputs.depends.clone_from(depends);
        let mut record = record(&id.to_string(), kernel.as_str(), inputs);
        record.objects.push(facts::object(id));
        let (installed, in_place) =
            pair.built.as_ref().map_or((false, false), |built| (built.installed, false));
        pair.built = Some(Built { record: Some(record), installed, in_place, ..Built::default() });
        pair.failure = None;
    }

    fn perform(&mut self, action: &Action) {
        match action {
            Action::Register(id) | Action::UseKept(id) => {
                let module = self.0.modules.get_mut(id).unwrap();
                module.link = match module.source {
                    SourcePlace::Present => SourceLink::Source,
                    _ => SourceLink::Kept,
                };
            }
            Action::Adopt { module, kernel, depends } => {
                self.build(module, kernel, depends);
                self.pair(module, kernel).built.as_mut().unwrap().in_place = true;
            }
            Action::Install { module, kernel, replaces } => {
                replaces.iter().for_each(|old| self.uninstall(old, kernel));
                self.pair(module, kernel).built.as_mut().unwrap().installed = true;
                self.place(module, kernel);
            }
            Action::Uninstall { module, kernel, successors } => {
                let is_installed = |new| self.0.built(new, kernel).is_some_and(|it| it.installed);
                if successors.iter().all(is_installed) {
                    self.uninstall(module, kernel);
                }
            }
            Action::Unbuild(id, kernel) => {
                let pair = self.pair(id, kernel);
                // The build of an installed module stays.
                if !pair.built.as_ref().is_some_and(|built| built.installed) {
                    (pair.built, pair.failure) = (None, None);
                }
            }
            Action::Deregister(id) => {
                let Some(module) = self.0.modules.get_mut(id) else { return };
                // A module with builds stays.
                if module.pairs.values().any(|pair| pair.built.is_some()) {
                    return;
                }
                module.link = SourceLink::None;
                if module.source != SourcePlace::Present {
                    module.source = SourcePlace::Missing;
                    // An inventory may still list the module.
                    if module.pairs.values().all(|pair| !pair.placed) {
                        self.0.modules.remove(id);
                    }
                }
            }
            Action::Depmod(kernel) => {
                if let Some(about) = self.0.kernels.get_mut(kernel) {
                    about.index_outdated = false;
                }
            }
            Action::RemoveLeftovers(kernel) => drop(self.0.kernels.remove(kernel)),
            _ => {}
        }
    }

    fn place(&mut self, id: &ModuleId, kernel: &KernelRelease) {
        let pair = self.pair(id, kernel);
        pair.placed = true;
        pair.built.iter_mut().for_each(|built| built.in_place = true);
        let arch = Arch::of_this_machine();
        let mut placed = Placed::intended(id, &arch, &facts::object(id), None);
        placed.condition = Condition::Intact;
        if let Some(about) = self.0.kernels.get_mut(kernel) {
            about.inventory.list(placed);
        }
    }

    fn uninstall(&mut self, id: &ModuleId, kernel: &KernelRelease) {
        if !self.0.modules.contains_key(id) {
            return;
        }
        let path = facts::object(id).path();
        let pair = self.pair(id, kernel);
        pair.placed = false;
        if let Some(built) = &mut pair.built {
            (built.installed, built.in_place) = (false, false);
        }
        if let Some(about) = self.0.kernels.get_mut(kernel) {
            about.inventory.strike(id, &path);
            // The object below the removed one is placed again if it has been built.
            let below = about.inventory.top(&path).map(|below| below.module.clone());
            if let Some(below) = below.filter(|below| self.0.built(below, kernel).is_some()) {
                self.place(&below, kernel);
            }
        }
    }
}
