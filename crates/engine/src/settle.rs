//! The debts of one run: noted before its first step, cleared after its last.

use std::collections::BTreeSet;

use crate::debts::{Debt, Debts};
use crate::durable::FileError;
use crate::facts::Facts;
use crate::names::{KernelRelease, ModuleId};
use crate::plan::{Action, Plan};
use crate::report::{Outcome, Report};
use crate::trees::Trees;

/// What a plan owes and pays.
pub(crate) struct Ledger<'a> {
    debts: Debts,
    plan: &'a Plan,
    facts: &'a Facts,
    /// What stood in the ledger before.
    known: BTreeSet<&'a Debt>,
}

impl<'a> Ledger<'a> {
    pub(crate) fn open(trees: &Trees, plan: &'a Plan, facts: &'a Facts) -> Self {
        Self { debts: Debts::of(trees), plan, facts, known: facts.debts.iter().collect() }
    }

    /// Notes what was asked for, so that it is finished if we are not. What costs no step is not
    /// worth a file, and neither is what the journal noted before the transaction.
    ///
    /// Answers what went wrong.
    pub(crate) fn note(&self) -> Vec<String> {
        let (mut sources, mut kernels) = (BTreeSet::new(), BTreeSet::new());
        for debt in self.plan.owes.iter().filter(|debt| !self.is_noted(debt)) {
            match debt {
                Debt::Source(dir) => drop(sources.insert(dir.clone())),
                Debt::Kernel(kernel) => drop(kernels.insert(kernel.clone())),
                _ => {}
            }
        }
        if self.plan.steps.is_empty() || (sources.is_empty() && kernels.is_empty()) {
            return Vec::new();
        }
        trouble(self.debts.write(&Debt::Transaction { sources, kernels }))
    }

    fn is_noted(&self, debt: &Debt) -> bool {
        self.known.contains(debt)
            || self.known.iter().any(|known| match (known, debt) {
                (Debt::Transaction { sources, .. }, Debt::Source(dir)) => sources.contains(dir),
                (Debt::Transaction { kernels, .. }, Debt::Kernel(kernel)) => {
                    kernels.contains(kernel)
                }
                _ => false,
            })
    }

    /// Clears what is paid. What failed because of the machine stays owed, each part by itself.
    ///
    /// Answers what went wrong.
    pub(crate) fn settle(&self, own: &BTreeSet<Debt>, report: &Report) -> Vec<String> {
        let mut problems = Vec::new();
        if report
            .finished
            .iter()
            .any(|done| done.step.action == Action::Leave && done.outcome == Outcome::Done)
        {
            return problems;
        }
        let left = Unsettled::of(report);
        for debt in &self.plan.owes {
            let paid = self.plan.settles.contains(debt) && !self.is_still_owed(debt, &left);
            if !paid {
                problems.extend(trouble(self.debts.write(debt)));
            }
        }
        for debt in self.plan.settles.iter().chain(own) {
            let noted = own.contains(debt) || self.known.contains(debt);
            if noted && !self.is_still_owed(debt, &left) {
                problems.extend(trouble(self.debts.clear(debt)));
            }
        }
        // Taken apart by now: what stays owed of a transaction has a file of its own.
        if problems.is_empty() && !self.plan.owes.is_empty() {
            let transactions = self.debts.read();
            for debt in transactions.iter().filter(|d| matches!(d, Debt::Transaction { .. })) {
                problems.extend(trouble(self.debts.clear(debt)));
            }
        }
        problems
    }

    fn is_still_owed(&self, debt: &Debt, left: &Unsettled) -> bool {
        match debt {
            Debt::Source(dir) => {
                let mut modules = self.facts.modules.iter().filter(|(_, m)| m.source_dir == *dir);
                modules.any(|(id, _)| left.stayed.contains(id) || left.concerns(Some(id), None))
            }
            Debt::Kernel(kernel) => left.concerns(None, Some(kernel)),
            Debt::Install { module, kernel } | Debt::Uninstall { module, kernel } => {
                left.concerns(Some(module), Some(kernel))
            }
            Debt::Remove(module) => {
                left.stayed.contains(module) || left.concerns(Some(module), None)
            }
            Debt::LeftOver(_) | Debt::Transaction { .. } | Debt::Image { .. } => false,
        }
    }
}

fn trouble(result: Result<(), FileError>) -> Vec<String> {
    result.err().map(|error| error.to_string()).into_iter().collect()
}

/// What a run leaves to be done. Gathered once: a transaction may owe as much as it has targets.
struct Unsettled<'a> {
    /// Modules that were to be forgotten and had to stay.
    stayed: BTreeSet<&'a ModuleId>,
    /// What failed and may not fail the next time.
    passing: Vec<&'a Action>,
}

impl<'a> Unsettled<'a> {
    fn of(report: &'a Report) -> Self {
        let stayed = report.finished.iter().filter_map(|done| match &done.step.action {
            Action::Deregister(module) if matches!(done.outcome, Outcome::Skipped(_)) => {
                Some(module)
            }
            _ => None,
        });
        let passing = report.failures().filter(|(_, failed)| failed.transient);
        Self { stayed: stayed.collect(), passing: passing.map(|(action, _)| action).collect() }
    }

    /// Whether something that failed is about these.
    fn concerns(&self, module: Option<&ModuleId>, kernel: Option<&KernelRelease>) -> bool {
        self.passing.iter().any(|action| {
            let same_kernel =
                kernel.is_none() || action.kernel().is_none() || action.kernel() == kernel;
            let same_module =
                module.is_none() || action.module().is_none() || action.module() == module;
            same_kernel && same_module
        })
    }
}
