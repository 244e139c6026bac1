//! Decides whether other modules take the place of a module whose source was removed.
//!
//! A successor is another version of the module, or any module that contains one of its objects,
//! because packages are renamed, merged and replaced.

use std::collections::BTreeSet;

use super::{Action, Planner};
use crate::facts::{ModuleFacts, Stage};
use crate::names::{KernelRelease, ModuleId};

/// The state of a module's successors for one kernel.
pub(super) enum Successor {
    /// Another version is installed, or this plan installs one.
    Version,
    /// Modules with other names contain the objects. These modules are installed, or this plan
    /// installs them.
    Others(Vec<ModuleId>),
    /// There is a successor, but it is not installed for the kernel. It may have failed, or
    /// BUILD_EXCLUSIVE_* may exclude it.
    Missing,
    /// There is no successor.
    None,
}

impl Planner<'_> {
    /// Returns the state of the successors of `id`. The modules in `gone` do not count as
    /// successors.
    pub(super) fn successor(
        &self,
        id: &ModuleId,
        kernel: &KernelRelease,
        gone: &BTreeSet<ModuleId>,
    ) -> Successor {
        let facts = self.facts;
        let is_candidate = |(other, module): &(&ModuleId, &ModuleFacts)| {
            *other != id && !gone.contains(*other) && facts.has_usable_source(other, module)
        };
        let candidates = facts.modules.iter().filter(is_candidate).map(|(other, _)| other);
        let (versions, others): (Vec<&ModuleId>, Vec<&ModuleId>) =
            candidates.partition(|other| other.name == id.name);
        let is_installed = |other: &ModuleId| {
            let is_there = self.will_have.contains(&(other.clone(), kernel.clone()))
                || facts.is_installed(other, kernel);
            is_there && !self.is_uninstalled(other, kernel)
        };
        if versions.iter().any(|other| is_installed(other)) {
            return Successor::Version;
        }
        let objects = facts.objects(id, kernel);
        let mut successors = Vec::new();
        let (mut wanted, mut installed) = (BTreeSet::new(), BTreeSet::new());
        for other in others {
            let same = facts.objects(other, kernel).intersection(&objects).cloned().collect();
            let same: BTreeSet<String> = same;
            if is_installed(other) && !same.is_empty() {
                successors.push(other.clone());
                installed.extend(same.clone());
            }
            wanted.extend(same);
        }
        if wanted.is_empty() && versions.is_empty() {
            Successor::None
        } else if !wanted.is_empty() && installed == wanted {
            Successor::Others(successors)
        } else {
            Successor::Missing
        }
    }

    /// Returns true if the plan already uninstalls a module from a kernel.
    pub(super) fn is_uninstalled(&self, id: &ModuleId, kernel: &KernelRelease) -> bool {
        self.plan.after.iter().any(|step| {
            matches!(&step.action, Action::Uninstall { module, kernel: of, .. }
                if (module, of) == (id, kernel))
        })
    }

    /// Returns true if a kernel is installed, or if an unfinished transaction may install it again.
    fn may_exist(&self, kernel: &KernelRelease) -> bool {
        let facts = self.facts;
        let mut unfinished = facts.transactions.iter().filter(|it| it.stage != Stage::Completed);
        !facts.is_gone(kernel)
            || unfinished
                .any(|it| it.lacking.kernels.contains(kernel) || it.held.kernels.contains(kernel))
    }

    /// Returns true if the module is installed for at least one kernel, and if successors are
    /// installed for every kernel for which it is installed.
    pub(super) fn has_successors(&self, id: &ModuleId, module: &ModuleFacts) -> bool {
        let gone = [id.clone()].into();
        let is_installed =
            |kernel: &&KernelRelease| self.may_exist(kernel) && self.facts.is_installed(id, kernel);
        let mut kernels = module.pairs.keys().filter(is_installed).peekable();
        let is_succeeded = |kernel: &KernelRelease| {
            matches!(self.successor(id, kernel, &gone), Successor::Version | Successor::Others(_))
        };
        kernels.peek().is_some() && kernels.all(is_succeeded)
    }
}
