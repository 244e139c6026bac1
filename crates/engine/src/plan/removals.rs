//! Planning what has to go: objects of sources and kernels that a transaction took away.
//!
//! Only a Remove target or a recorded debt licenses a removal. A source that is merely missing
//! (an unmounted `/usr/src`) removes nothing.

use std::collections::BTreeSet;

use super::{Action, Note, Planner};
use crate::debts::Debt;
use crate::facts::{ModuleFacts, SourcePlace};
use crate::names::{KernelRelease, ModuleId};
use crate::record::Reason;

impl Planner<'_> {
    /// Plans the removal of what is gone among the sources and kernels that were touched.
    pub(super) fn leave(&mut self, sources: &BTreeSet<String>, kernels: &BTreeSet<KernelRelease>) {
        self.finish_uninstalling();
        self.leave_kernels(kernels);
        let gone = self.gone_modules(sources);
        for id in &gone {
            self.retire(id, &gone);
        }
    }

    /// Removes what leaves in the same transaction as we do.
    pub(super) fn depart(
        &mut self,
        sources: &BTreeSet<String>,
        kernels: &BTreeSet<KernelRelease>,
        swap: bool,
    ) {
        let facts = self.facts;
        if !swap {
            for kernel in kernels {
                for id in facts.modules.keys() {
                    self.unbuild(id, kernel, Vec::new());
                }
            }
            let leaving = |(_, module): &(_, &ModuleFacts)| {
                sources.contains(&module.source_dir) && module.is_registered()
            };
            for (id, module) in facts.modules.iter().filter(leaving) {
                for kernel in module.pairs.keys() {
                    self.unbuild(id, kernel, Vec::new());
                }
                self.step(Action::Deregister(id.clone()), Vec::new());
            }
        }
        self.step(Action::Leave, Vec::new());
    }

    /// The touched sources that are not there any more, as modules that dkms knows.
    fn gone_modules(&self, sources: &BTreeSet<String>) -> BTreeSet<ModuleId> {
        let facts = self.facts;
        let owed = |id: &ModuleId| facts.debts.contains(&Debt::Remove(id.clone()));
        facts
            .modules
            .iter()
            .filter(|(id, module)| {
                let taken_away =
                    sources.contains(&module.source_dir) && module.source != SourcePlace::Present;
                taken_away || owed(id)
            })
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Kernels that are gone take with them everything that was built for them.
    fn leave_kernels(&mut self, kernels: &BTreeSet<KernelRelease>) {
        let facts = self.facts;
        for kernel in kernels {
            if facts.kernels.get(kernel).is_some_and(|k| k.kernel.alive) {
                continue;
            }
            for id in facts.modules.keys() {
                self.unbuild(id, kernel, Vec::new());
            }
            self.step(Action::Sweep(kernel.clone()), Vec::new());
        }
    }

    /// Removes a module whose source is gone, but not from a kernel where the version that
    /// replaces it could not be installed: the old object is better than none.
    fn retire(&mut self, id: &ModuleId, gone: &BTreeSet<ModuleId>) {
        let facts = self.facts;
        let Some(module) = facts.modules.get(id) else { return };
        let successors: Vec<&ModuleId> = facts
            .versions(&id.name)
            .map(|(other, _)| other)
            .filter(|o| !gone.contains(*o))
            .collect();
        let mut kept = false;
        for (kernel, pair) in &module.pairs {
            let installed = pair.built.as_ref().is_some_and(|built| built.installed);
            let alive = facts.kernels.get(kernel).is_some_and(|k| k.kernel.alive);
            let replaced = |other: &&&ModuleId| {
                self.will_have.contains(&((**other).clone(), kernel.clone()))
                    || facts.built(other, kernel).is_some_and(|built| built.installed)
            };
            let excluded = |other: &&&ModuleId| {
                let conf = facts.pair(other, kernel).and_then(|pair| pair.conf.as_ref());
                matches!(conf, Some(Ok(conf)) if conf.excluded.is_some())
            };
            let stays = installed
                && alive
                && !successors.is_empty()
                && !successors.iter().any(|other| excluded(&other))
                && !successors.iter().any(|other| replaced(&other));
            if stays {
                self.note(Note::Kept { module: id.clone(), kernel: kernel.clone() });
                kept = true;
            } else {
                let now_replaced = successors
                    .iter()
                    .any(|other| self.will_have.contains(&((**other).clone(), kernel.clone())));
                self.retire_from(id, kernel, now_replaced);
            }
        }
        if !kept {
            self.step(Action::Deregister(id.clone()), Vec::new());
        }
    }

    /// A version that is replaced in this plan was uninstalled by the installation of its
    /// successor; whether that worked is known only when the plan is carried out, and unbuilding
    /// checks it.
    fn retire_from(&mut self, id: &ModuleId, kernel: &KernelRelease, replaced: bool) {
        if replaced {
            self.forget_build(id, kernel, Vec::new());
        } else {
            self.unbuild(id, kernel, Vec::new());
        }
    }

    /// Removals that were begun and not finished.
    fn finish_uninstalling(&mut self) {
        for debt in &self.facts.debts {
            if let Debt::Uninstall { module, kernel } = debt {
                self.uninstall(module, kernel, vec![Reason::Interrupted]);
            }
        }
    }

    /// Plans to uninstall, once.
    pub(super) fn uninstall(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        let action = Action::Uninstall(id.clone(), kernel.clone());
        if self.plan.steps.iter().any(|step| step.action == action) {
            return;
        }
        self.touched.insert(kernel.clone());
        self.step(action, why);
    }

    /// Plans to forget what was built, and to uninstall it before if it is installed.
    pub(super) fn unbuild(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        if let Some(built) = self.facts.built(id, kernel) {
            if built.installed {
                self.uninstall(id, kernel, why.clone());
            }
            self.forget_build(id, kernel, why);
        }
    }

    fn forget_build(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        let there = self.facts.built(id, kernel).is_some();
        if there && self.forgotten.insert((id.clone(), kernel.clone())) {
            self.step(Action::Unbuild(id.clone(), kernel.clone()), why);
        }
    }

    /// Names the debts that this plan pays: all but those for old versions that stay.
    pub(super) fn settle(&mut self, sources: &BTreeSet<String>, kernels: &BTreeSet<KernelRelease>) {
        let facts = self.facts;
        let stays = |dir: &String| {
            self.plan.notes.iter().any(|note| match note {
                Note::Kept { module, .. } => {
                    facts.modules.get(module).is_some_and(|m| m.source_dir == *dir)
                }
                _ => false,
            })
        };
        let owed_sources = sources.iter().map(|dir| Debt::Source(dir.clone()));
        let owed_kernels = kernels.iter().cloned().map(Debt::Kernel);
        let owes: Vec<Debt> = owed_sources.chain(owed_kernels).collect();
        let paid = |debt: &&Debt| match debt {
            Debt::Source(dir) => !stays(dir),
            Debt::Kernel(kernel) => !self.is_copy(kernel),
            _ => true,
        };
        let mut settles: Vec<Debt> = owes.iter().filter(paid).cloned().collect();
        for debt in &facts.debts {
            let paid = match debt {
                Debt::Source(_) | Debt::Kernel(_) => false,
                Debt::Install { .. } | Debt::Uninstall { .. } => true,
                Debt::Remove(id) => {
                    let kept =
                        |note: &Note| matches!(note, Note::Kept { module, .. } if module == id);
                    !self.plan.notes.iter().any(kept)
                }
            };
            if paid {
                settles.push(debt.clone());
            }
        }
        self.plan.owes = owes;
        self.plan.settles = settles;
    }

    /// A copy of a kernel goes at the next boot: what was built for it goes then, if this is
    /// still owed.
    fn is_copy(&self, kernel: &KernelRelease) -> bool {
        self.facts.kernels.get(kernel).is_some_and(|k| k.kernel.alive && !k.owned)
    }
}
