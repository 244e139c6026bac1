//! A run that is asked to end: what is still done, and what is left.

use std::collections::BTreeSet;

use super::Run;
use crate::dkms_tree::PendingWork;
use crate::failure::Failure;
use crate::plan::{Action, Plan, Step};
use crate::report::Interruption;

impl Run<'_> {
    pub(super) fn is_stopped(&self) -> bool {
        self.machine.tools.stop.asked().is_some()
    }

    /// Carries a step out unless we were asked to end. Where modules were placed or taken away,
    /// the index is brought up to date all the same: else modprobe would miss them.
    pub(super) fn step_unless_stopped(&mut self, step: &Step) {
        let indexes = |kernel| self.touched.contains(kernel);
        if !self.is_stopped() || matches!(&step.action, Action::Depmod(kernel) if indexes(kernel)) {
            self.step(step);
        }
    }

    /// What an interruption left of `plan`, if there was one and it left anything. The modules
    /// that are still to be installed are pending from here on.
    pub(super) fn interruption(&mut self, plan: &Plan) -> Option<Interruption> {
        let signal = self.machine.tools.stop.asked()?;
        let over: Vec<&Step> = self.report.finished.iter().map(|done| &done.step).collect();
        let open: Vec<&Step> = plan.steps().filter(|step| !over.contains(step)).collect();
        if open.is_empty() {
            return None;
        }
        for step in &open {
            if let Action::Install { module, kernel, .. } = &step.action {
                let work = PendingWork::Install { module: module.clone(), kernel: kernel.clone() };
                let trouble = self.pending.write(&work).err().map(|error| error.to_string());
                self.report.trouble.extend(trouble);
            }
        }
        Some(Interruption {
            signal,
            all: modules(plan.steps()),
            left: modules(open.into_iter()),
            pending: !self.pending.read().is_empty(),
        })
    }
}

/// A failure if something that belongs to a step was cut short because we were asked to end. A step that has come to its
/// end by then is done, and must not be counted as left.
pub(super) fn complete_unless(cut_short: bool) -> Result<(), Failure> {
    let failed = || Failure::transient(1, "interrupted");
    if cut_short { Err(failed()) } else { Ok(()) }
}

/// How many modules the steps build or install, counted for each kernel.
fn modules<'a>(steps: impl Iterator<Item = &'a Step>) -> usize {
    steps.filter_map(|step| step.action.job()).collect::<BTreeSet<_>>().len()
}
