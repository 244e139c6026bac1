//! Planning what has to go: objects of sources and kernels that a transaction took away.
//!
//! Only a Remove target or recorded pending work permits a removal. A source that is merely missing
//! (an unmounted `/usr/src`) removes nothing.

use std::collections::BTreeSet;

use super::arrivals::Touched;
use super::{Action, Note, Planner};
use crate::dkms_tree::{PendingWork, Reason};
use crate::facts::{ModuleFacts, SourceLink, SourcePlace};
use crate::names::{KernelRelease, ModuleId};

/// What becomes of a kernel when a version of a module goes.
enum Successor {
    /// Another version is installed there, or will be.
    Installed,
    /// Another version is there but is not meant for this kernel.
    Excluded,
    /// Another version is there but could not be installed.
    Missing,
    /// No version of the module is left.
    None,
}

impl Planner<'_> {
    /// Plans the removal of what is gone among the sources and kernels that were touched.
    pub(super) fn leave(&mut self, touched: &Touched) {
        self.finish_uninstalling();
        let mut kernels = touched.kernels.clone();
        let left_over = self.facts.pending.iter().filter_map(|work| match work {
            PendingWork::LeftOver(kernel) => Some(kernel.clone()),
            _ => None,
        });
        kernels.extend(left_over);
        self.leave_kernels(&kernels);
        for id in &touched.gone {
            self.retire(id, &touched.gone);
        }
        for work in &self.facts.pending {
            // A removal that was killed when the module's directory was gone already.
            if let PendingWork::Remove(id) = work
                && !self.facts.modules.contains_key(id)
            {
                self.step(Action::Deregister(id.clone()), vec![Reason::Interrupted]);
            }
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
            self.finish_uninstalling();
            for kernel in kernels {
                for id in facts.modules.keys() {
                    self.unbuild(id, kernel, Vec::new());
                }
            }
            // What stayed only because its successor failed goes too.
            let pending = self.touched(&BTreeSet::new(), &BTreeSet::new()).gone;
            let leaving = |(id, module): &(&ModuleId, &ModuleFacts)| {
                module.is_registered()
                    && (sources.contains(&module.source_dir) || pending.contains(*id))
            };
            for (id, module) in facts.modules.iter().filter(leaving) {
                for kernel in module.pairs.keys() {
                    self.unbuild(id, kernel, Vec::new());
                }
                self.step(Action::Deregister(id.clone()), Vec::new());
            }
        } else {
            // Sources that leave in the same transaction lead to the copies we kept.
            let gone = facts.modules.keys().cloned().collect();
            self.mend_links(&gone);
        }
        self.step(Action::Leave, Vec::new());
    }

    /// The touched sources that are not there any more, as modules that dkms knows.
    pub(super) fn gone_modules(&self, sources: &BTreeSet<String>) -> BTreeSet<ModuleId> {
        let facts = self.facts;
        let gone = |(id, module): &(&ModuleId, &ModuleFacts)| {
            let taken_away =
                sources.contains(&module.source_dir) && module.source != SourcePlace::Present;
            taken_away || facts.pending.contains(&PendingWork::Remove((*id).clone()))
        };
        facts.modules.iter().filter(gone).map(|(id, _)| id.clone()).collect()
    }

    /// Leads the links of modules whose source is gone to the copies that were kept; a source
    /// that is missing though nobody removed it is reported.
    pub(super) fn mend_links(&mut self, gone: &BTreeSet<ModuleId>) {
        for (id, module) in &self.facts.modules {
            if gone.contains(id) {
                if module.link == SourceLink::Mendable {
                    self.mend_link(id);
                }
            } else if matches!(module.link, SourceLink::Mendable | SourceLink::Broken) {
                let (module, dir) = (id.clone(), module.source_dir.clone());
                self.note(Note::SourceMissing { module, dir });
            }
        }
    }

    pub(super) fn mend_link(&mut self, id: &ModuleId) {
        let action = Action::UseKept(id.clone());
        if !self.plan.steps.iter().any(|step| step.action == action) {
            self.step(action, Vec::new());
        }
    }

    /// Kernels that are gone take with them everything that was built for them.
    fn leave_kernels(&mut self, kernels: &BTreeSet<KernelRelease>) {
        let facts = self.facts;
        if !facts.kernels_known {
            return;
        }
        for kernel in kernels.iter().filter(|kernel| !facts.is_alive(kernel)) {
            for id in facts.modules.keys() {
                self.unbuild(id, kernel, Vec::new());
            }
            // Headers that came before their kernel, or outlived it, are their package's.
            if !facts.has_headers(kernel) {
                self.step(Action::Sweep(kernel.clone()), Vec::new());
            }
        }
    }

    /// Removes a module whose source is gone, but not from a kernel where the version that
    /// replaces it could not be installed: the old object is better than none.
    fn retire(&mut self, id: &ModuleId, gone: &BTreeSet<ModuleId>) {
        let facts = self.facts;
        let Some(module) = facts.modules.get(id) else { return };
        let mut kept = false;
        for (kernel, pair) in &module.pairs {
            let installed = pair.built.as_ref().is_some_and(|built| built.installed);
            match self.successor(id, kernel, gone) {
                Successor::Missing if installed && facts.is_alive(kernel) => {
                    self.note(Note::Kept { module: id.clone(), kernel: kernel.clone() });
                    kept = true;
                }
                // Its successor's installation uninstalls it; if that fails, unbuilding finds it
                // installed and leaves it.
                Successor::Installed => self.forget_build(id, kernel, Vec::new()),
                _ => self.unbuild(id, kernel, Vec::new()),
            }
        }
        if !kept {
            self.step(Action::Deregister(id.clone()), Vec::new());
        }
    }

    fn successor(
        &self,
        id: &ModuleId,
        kernel: &KernelRelease,
        gone: &BTreeSet<ModuleId>,
    ) -> Successor {
        let facts = self.facts;
        let others: Vec<&ModuleId> = facts
            .versions(&id.name)
            .filter(|(other, m)| !gone.contains(*other) && m.source != SourcePlace::Missing)
            .map(|(other, _)| other)
            .collect();
        let installed = |other: &&ModuleId| {
            self.will_have.contains(&((*other).clone(), kernel.clone()))
                || facts.built(other, kernel).is_some_and(|built| built.installed)
        };
        let excluded =
            |other: &&ModuleId| facts.conf(other, kernel).is_some_and(|c| c.excluded.is_some());
        if others.iter().any(installed) {
            Successor::Installed
        } else if others.iter().any(excluded) {
            Successor::Excluded
        } else if others.is_empty() {
            Successor::None
        } else {
            Successor::Missing
        }
    }

    /// Removals that were begun and not finished, unless the module is wanted again.
    fn finish_uninstalling(&mut self) {
        for work in &self.facts.pending {
            if let PendingWork::Uninstall { module, kernel } = work
                && !self.will_have.contains(&(module.clone(), kernel.clone()))
            {
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
        let Some(built) = self.facts.built(id, kernel) else { return };
        // What an interrupted run left in the kernel's directory goes with it.
        if built.record.as_ref().is_some_and(|record| !record.placed.is_empty()) {
            self.touched.insert(kernel.clone());
        }
        if self.forgotten.insert((id.clone(), kernel.clone())) {
            self.step(Action::Unbuild(id.clone(), kernel.clone()), why);
        }
    }

    /// Says what is pending from the first step on, and what this plan finishes: not the work for
    /// old versions that stay, nor those for copies of kernels, which go at the next boot.
    pub(super) fn note_pending(&mut self, touched: &Touched) {
        let facts = self.facts;
        let kept = |id: &ModuleId| {
            let notes = &self.plan.notes;
            notes.iter().any(|note| matches!(note, Note::Kept { module, .. } if module == id))
        };
        let kept_dirs: BTreeSet<&String> =
            facts.modules.iter().filter(|(id, _)| kept(id)).map(|(_, m)| &m.source_dir).collect();
        let copy = |kernel: &KernelRelease| {
            facts.kernels.get(kernel).is_some_and(|about| about.kernel.alive && !about.owned)
        };
        let unknown = |kernel: &KernelRelease| !facts.kernels_known && !facts.is_alive(kernel);

        let dirs = touched.sources.iter().filter(|dir| !kept_dirs.contains(dir));
        let releases = touched.kernels.iter().filter(|kernel| !unknown(kernel));
        let mut finishes: BTreeSet<PendingWork> = dirs
            .cloned()
            .map(PendingWork::Source)
            .chain(releases.cloned().map(PendingWork::Kernel))
            .collect();
        for work in &facts.pending {
            let finished = match work {
                PendingWork::Install { .. } | PendingWork::Uninstall { .. } => true,
                PendingWork::LeftOver(kernel) => facts.kernels_known && !facts.is_alive(kernel),
                PendingWork::Remove(id) => !kept(id),
                // These are taken apart: what stays pending of them gets a file of its own.
                PendingWork::Transaction { .. }
                | PendingWork::Source(_)
                | PendingWork::Kernel(_) => false,
                // Not the engine's to finish.
                PendingWork::Image { .. } => false,
            };
            if finished {
                finishes.insert(work.clone());
            }
        }
        let sources = touched.sources.iter().cloned().map(PendingWork::Source);
        let mut noted: BTreeSet<PendingWork> =
            sources.chain(touched.kernels.iter().cloned().map(PendingWork::Kernel)).collect();
        noted
            .extend(touched.kernels.iter().filter(|k| copy(k)).cloned().map(PendingWork::LeftOver));
        self.plan.notes_pending = noted;
        self.plan.finishes = finishes;
    }
}
