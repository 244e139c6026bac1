//! Records the requested work of a run as pending before the first step, and clears the finished
//! work after the last one.

use std::collections::{BTreeMap, BTreeSet};

use crate::dkms_tree::{Attempts, PendingList, PendingWork, Reason};
use crate::facts::Facts;
use crate::machine::Trees;
use crate::names::{KernelRelease, ModuleId};
use crate::os::durable::FileError;
use crate::plan::{Action, Plan, Step};
use crate::report::{Finished, Outcome, Report};

/// The pending work of one run.
pub(crate) struct RunPending<'a> {
    trees: &'a Trees,
    pending: PendingList,
    plan: &'a Plan,
    facts: &'a Facts,
    /// The entries that this run may clear: those that it has read or written.
    known: BTreeSet<PendingWork>,
}

impl<'a> RunPending<'a> {
    pub(crate) fn open(trees: &'a Trees, plan: &'a Plan, facts: &'a Facts) -> Self {
        let known = facts.pending.iter().cloned().collect();
        Self { trees, pending: PendingList::of(trees), plan, facts, known }
    }

    /// Records the requested work, in case the run is killed. Returns error messages; empty on
    /// success.
    ///
    /// Does nothing if the plan has no steps. Skips work that is already recorded, for example by
    /// the journal hook.
    pub(crate) fn note(&mut self) -> Vec<String> {
        if self.plan.is_empty() {
            return Vec::new();
        }
        let (mut sources, mut kernels) = (BTreeSet::new(), BTreeSet::new());
        let mut entries = BTreeSet::new();
        for work in self.plan.notes_pending.iter().filter(|work| !self.is_noted(work)) {
            match work {
                PendingWork::Source(dir) => drop(sources.insert(dir.clone())),
                PendingWork::Kernel(kernel) => drop(kernels.insert(kernel.clone())),
                departed => drop(entries.insert(departed.clone())),
            }
        }
        if !sources.is_empty() || !kernels.is_empty() {
            entries.insert(PendingWork::Transaction { sources, kernels });
        }
        let written = entries.iter().map(|work| self.pending.write(work));
        let problems = written.flat_map(message_of).collect();
        self.known.extend(entries);
        problems
    }

    fn is_noted(&self, work: &PendingWork) -> bool {
        let mut transactions = self.facts.transactions.iter();
        let in_journal = transactions.any(|it| match work {
            PendingWork::Source(dir) => it.arrived.sources.contains(dir),
            PendingWork::Kernel(kernel) => it.arrived.kernels.contains(kernel),
            PendingWork::DepartedSource(dir) => it.departed.sources.contains(dir),
            PendingWork::DepartedKernel(kernel) => it.departed.kernels.contains(kernel),
            _ => false,
        });
        in_journal
            || self.known.contains(work)
            || self.known.iter().any(|known| match (known, work) {
                (PendingWork::Transaction { sources, .. }, PendingWork::Source(dir)) => {
                    sources.contains(dir)
                }
                (PendingWork::Transaction { kernels, .. }, PendingWork::Kernel(kernel)) => {
                    kernels.contains(kernel)
                }
                _ => false,
            })
    }

    /// Clears the requested work and the work in `own`, except for work that is unfinished
    /// according to `report`. Returns error messages; empty on success.
    ///
    /// `own` is the work that the run recorded while carrying out steps. Work with a transient
    /// failure stays pending, with one entry for each source and kernel.
    pub(crate) fn clear_finished(
        &self,
        own: &BTreeSet<PendingWork>,
        report: &Report,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let left = Unfinished::of(report, &self.pending.attempts());
        for work in &self.plan.notes_pending {
            let finished = self.plan.finishes.contains(work) && !self.is_still_pending(work, &left);
            if !finished {
                problems.extend(message_of(self.pending.write(work)));
            }
        }
        for work in self.plan.finishes.iter().chain(own) {
            let noted = own.contains(work) || self.known.contains(work);
            if noted && self.is_refused(work, report) {
                problems.extend(message_of(self.withdraw(work)));
            } else if noted && !self.is_still_pending(work, &left) {
                problems.extend(message_of(self.pending.clear(work)));
            }
        }
        if problems.is_empty() {
            problems.extend(self.clear_transactions());
        }
        problems
    }

    /// Returns true if `work` was not pending before, and a step that the user requested by name
    /// has failed to do it. Such work is not kept pending, because the user has seen the failure.
    /// Also returns true for a failed uninstallation that the removal of a source or kernel caused,
    /// because the removal itself stays pending.
    fn is_refused(&self, work: &PendingWork, report: &Report) -> bool {
        let of_work = |step: &Step| step.action.pending_work().as_ref() == Some(work);
        let mut failures = report
            .finished
            .iter()
            .filter(|it| matches!(it.outcome, Outcome::Failed(_)) && of_work(&it.step));
        let is_requested = |finished: &Finished| {
            let steps = self.plan.steps_of(finished.task).chain([&finished.step]);
            matches!(work, PendingWork::Uninstall { .. })
                || steps.into_iter().any(|step| step.why.contains(&Reason::Requested))
        };
        !self.known.contains(work) && failures.any(is_requested)
    }

    /// Clears `work`, and restores the opposite work that `work` had cancelled.
    fn withdraw(&self, work: &PendingWork) -> Result<(), FileError> {
        self.pending.clear(work)?;
        match work.opposite().filter(|opposite| self.known.contains(opposite)) {
            Some(opposite) => {
                self.pending.begin(&opposite, self.facts.attempts.get(&opposite).copied())
            }
            None => Ok(()),
        }
    }

    /// Clears the transactions that the plan covers. By now, each unfinished part of a transaction
    /// has its own entry. If images are pending, the journal of the current transaction is only
    /// closed, because a later hook of that transaction regenerates the images.
    fn clear_transactions(&self) -> Vec<String> {
        let is_image = |work: &PendingWork| matches!(work, PendingWork::Image { .. });
        let has_images = || self.pending.read().iter().any(is_image);
        let settled = |(number, _): &(usize, _)| self.plan.settles.contains(number);
        let recorded = self.facts.transactions.iter().enumerate().filter(settled);
        let journals = recorded.map(|(_, transaction)| match transaction.is_own && has_images() {
            true => transaction.journal.close(),
            false => transaction.journal.clear(self.trees),
        });
        let is_covered = |work: &&PendingWork| {
            matches!(work, PendingWork::Transaction { .. }) && !self.plan.notes_pending.is_empty()
        };
        let entries = self.known.iter().filter(is_covered).map(|work| self.pending.clear(work));
        journals.chain(entries).flat_map(message_of).collect()
    }

    fn is_still_pending(&self, work: &PendingWork, left: &Unfinished) -> bool {
        match work {
            PendingWork::Source(dir) | PendingWork::DepartedSource(dir) => {
                let mut modules = self.facts.modules.iter().filter(|(_, m)| m.source_dir == *dir);
                modules.any(|(id, _)| left.kept.contains(id) || left.is_tried_again(Some(id), None))
            }
            PendingWork::Kernel(kernel) | PendingWork::DepartedKernel(kernel) => {
                left.is_tried_again(None, Some(kernel))
            }
            PendingWork::Install { module, kernel } | PendingWork::Uninstall { module, kernel } => {
                left.concerns(Some(module), Some(kernel))
            }
            PendingWork::Remove(module) => {
                left.kept.contains(module) || left.concerns(Some(module), None)
            }
            PendingWork::Transaction { .. } | PendingWork::Image { .. } => false,
        }
    }
}

fn message_of(result: Result<(), FileError>) -> Vec<String> {
    result.err().map(|error| error.to_string()).into_iter().collect()
}

/// The unfinished work of a run. It is collected once, because a transaction can have many targets.
struct Unfinished<'a> {
    /// The modules that were not removed because they are still built for a kernel.
    kept: BTreeSet<&'a ModuleId>,
    /// The failed actions that may succeed in the next run.
    transient: Vec<&'a Action>,
    /// The actions in `transient` that the next run tries again, because their attempts are not
    /// used up.
    tried_again: Vec<&'a Action>,
}

impl<'a> Unfinished<'a> {
    fn of(report: &'a Report, attempts: &BTreeMap<PendingWork, Attempts>) -> Self {
        let kept = report.finished.iter().filter_map(|done| match &done.step.action {
            Action::Deregister(module) if matches!(done.outcome, Outcome::Skipped(_)) => {
                Some(module)
            }
            _ => None,
        });
        let transient = report.failures().filter(|(_, failed)| failed.transient);
        let transient: Vec<&Action> = transient.map(|(action, _)| action).collect();
        let is_parked = |action: &&Action| {
            let work = action.job().map(|(module, kernel)| PendingWork::install(module, kernel));
            work.and_then(|work| attempts.get(&work)).is_some_and(Attempts::are_used_up)
        };
        let tried_again = transient.iter().copied().filter(|action| !is_parked(action)).collect();
        Self { kept: kept.collect(), transient, tried_again }
    }

    /// Returns true if an action for both `module` and `kernel` has failed transiently. `None`
    /// matches every module or kernel, as an argument and in the failed action.
    fn concerns(&self, module: Option<&ModuleId>, kernel: Option<&KernelRelease>) -> bool {
        self.transient.iter().any(|action| is_of(action, module, kernel))
    }

    /// Does the same as [`concerns`](Self::concerns), but ignores actions whose attempts are used
    /// up.
    fn is_tried_again(&self, module: Option<&ModuleId>, kernel: Option<&KernelRelease>) -> bool {
        self.tried_again.iter().any(|action| is_of(action, module, kernel))
    }
}

fn is_of(action: &Action, module: Option<&ModuleId>, kernel: Option<&KernelRelease>) -> bool {
    let same_kernel = kernel.is_none() || action.kernel().is_none() || action.kernel() == kernel;
    let same_module = module.is_none() || action.module().is_none() || action.module() == module;
    same_kernel && same_module
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::both(Some("foo/1"), Some("7.2"), true)]
    #[case::any_kernel(Some("foo/1"), None, true)]
    #[case::any_module(None, Some("7.2"), true)]
    #[case::another_kernel(Some("foo/1"), Some("7.3"), false)]
    #[case::another_module(Some("bar/1"), Some("7.2"), false)]
    fn an_action_is_of_its_module_and_kernel(
        #[case] module: Option<&str>,
        #[case] kernel: Option<&str>,
        #[case] want: bool,
    ) {
        let (foo, k) = ("foo/1".parse().unwrap(), "7.2".parse().unwrap());
        let action = Action::Build { module: foo, kernel: k };
        let module = module.map(|module| module.parse().unwrap());
        let kernel = kernel.map(|kernel| kernel.parse().unwrap());
        assert_eq!(is_of(&action, module.as_ref(), kernel.as_ref()), want);
    }
}
