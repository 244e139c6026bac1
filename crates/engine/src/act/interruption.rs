//! A run that is asked to end: what is still done, and what is left.

use super::Run;
use crate::dkms_tree::PendingWork;
use crate::failure::Failure;
use crate::plan::{Action, Plan, Step, Task};
use crate::report::Interruption;

impl Run<'_> {
    pub(super) fn is_stopped(&self) -> bool {
        self.machine.tools.stop.asked().is_some()
    }

    /// Carries a step out unless we were asked to end. Where modules were placed or taken away,
    /// the index is brought up to date all the same: else modprobe would miss them.
    pub(super) fn step_unless_stopped(&mut self, task: Task, step: &Step) {
        let indexes = |kernel| self.touched.contains(kernel);
        if !self.is_stopped() || matches!(&step.action, Action::Depmod(kernel) if indexes(kernel)) {
            self.step(task, step);
        }
    }

    /// Returns what an interruption left of `plan`; `None` if there was none, or if it left nothing.
    /// The modules that are not installed yet become pending work.
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
                if let Action::Install { module, kernel, .. } = &step.action {
                    let work =
                        PendingWork::Install { module: module.clone(), kernel: kernel.clone() };
                    let trouble = self.pending.write(&work).err().map(|error| error.to_string());
                    self.report.trouble.extend(trouble);
                }
            }
        }
        let pending = !self.pending.read().is_empty();
        (!is_done).then_some(Interruption { signal, all, left, pending })
    }
}

/// A failure if something that belongs to a step was cut short because we were asked to end. A step that has come to its
/// end by then is done, and must not be counted as left.
pub(super) fn complete_unless(cut_short: bool) -> Result<(), Failure> {
    let failed = || Failure::transient(1, "interrupted");
    if cut_short { Err(failed()) } else { Ok(()) }
}
