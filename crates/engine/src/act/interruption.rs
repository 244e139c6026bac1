//! Stops a run on request, and reports the unfinished work.

use std::collections::BTreeSet;

use super::{Run, pending_images};
use crate::dkms_tree::PendingWork;
use crate::failure::Failure;
use crate::os::durable::Durability;
use crate::plan::{Action, Plan, Step, Task};
use crate::report::Interruption;

impl Run<'_> {
    pub(super) fn is_stopped(&self) -> bool {
        self.machine.tools.stop.asked().is_some()
    }

    /// Carries out a step unless the run has been asked to stop. Even then, carries out a depmod
    /// step if modules of its kernel have changed, since modprobe would otherwise not find the new
    /// modules.
    pub(super) fn step_unless_stopped(&mut self, task: Task, step: &Step) {
        let indexes = |kernel| self.touched.contains(kernel);
        if !self.is_stopped() || matches!(&step.action, Action::Depmod(kernel) if indexes(kernel)) {
            self.step(task, step);
        }
    }

    /// Records the remaining installations, and the images of their kernels, as pending. Attempts
    /// that the signal has ended do not count. Returns a summary of the unfinished work, or `None`
    /// if the run was not asked to stop or if all steps of `plan` have ended.
    pub(super) fn interruption(&mut self, plan: &Plan) -> Option<Interruption> {
        let signal = self.machine.tools.stop.asked()?;
        let (mut is_done, mut all, mut left) = (true, 0, 0);
        for task in plan.tasks() {
            let ended = self.report.finished.iter().filter(|finished| finished.task == task);
            let open: Vec<&Step> = plan.steps_of(task).skip(ended.count()).collect();
            let is_module = plan.steps_of(task).any(|step| step.action.job().is_some());
            is_done &= open.is_empty();
            all += usize::from(is_module);
            left += usize::from(is_module && !open.is_empty());
            for step in open {
                let Some(work) = step.action.pending_work() else { continue };
                let is_begun = self.own_pending.contains(&work);
                if is_begun || matches!(work, PendingWork::Install { .. }) {
                    let attempts = self.facts.attempts.get(&work).copied();
                    let written = self.pending.begin(&work, attempts);
                    self.report.errors.extend(written.err().map(|error| error.to_string()));
                }
                if let PendingWork::Install { kernel, .. } = &work {
                    // Another program may regenerate an image without the module.
                    let nothing = BTreeSet::new();
                    let (machine, facts) = (self.machine, self.facts);
                    let noted =
                        pending_images::note(machine, facts, kernel, &nothing, Durability::None);
                    self.report.errors.extend(noted.err().map(|error| error.to_string()));
                }
            }
        }
        let pending = !self.pending.read().is_empty();
        (!is_done).then_some(Interruption { signal, all, left, pending })
    }
}

/// Returns a failure if `cut_short` is true, that is, if a request to stop has ended a program of
/// the step early. A step that ends normally despite such a request is complete.
pub(super) fn complete_unless(cut_short: bool) -> Result<(), Failure> {
    let failed = || Failure::transient(1, "interrupted");
    if cut_short { Err(failed()) } else { Ok(()) }
}
