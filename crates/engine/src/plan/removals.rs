//! Plans the removal of modules whose sources or kernels were removed.
//!
//! A module is removed only if a completed transaction removed its source or kernel, or if its
//! removal is pending. A source that is missing for another reason causes no removal: `/usr/src`
//! may not be mounted, or pacman may have been killed between two versions of a package.

use std::collections::BTreeSet;

use super::arrivals::Touched;
use super::successors::Successor;
use super::{Action, Note, Planner};
use crate::dkms_tree::{PendingWork, Reason};
use crate::facts::{ModuleFacts, SourceLink, SourcePlace, Subjects};
use crate::names::{KernelRelease, ModuleId};
use crate::os::digest::Digest;

impl Planner<'_> {
    /// Plans to remove the modules of sources and kernels that have departed and no longer exist.
    pub(super) fn remove_gone(&mut self, touched: &Touched) {
        self.finish_uninstalling();
        self.remove_gone_kernels(&touched.departed.kernels);
        for id in &touched.gone {
            self.remove_module(id, &touched.gone);
        }
        self.remove_succeeded();
        for work in &self.facts.pending {
            // An earlier run deleted the module's directory, but was interrupted before it had
            // finished.
            if let PendingWork::Remove(id) = work
                && !self.facts.modules.contains_key(id)
            {
                self.after_builds(Action::Deregister(id.clone()), vec![Reason::Interrupted]);
            }
        }
    }

    /// Plans the work before a transaction that removes alpm-dkms itself (`Request::Depart`).
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
            // If an old version stayed installed because the new version failed, it is removed
            // together with the new one. Other old versions stay, since the transaction may be
            // aborted.
            let none = Subjects::default();
            let pending = self.touched(&none, &none).gone;
            let departs = |module: &ModuleFacts| sources.contains(&module.source_dir);
            let leaving = |(id, module): &(&ModuleId, &ModuleFacts)| {
                let with_new = || facts.versions(&id.name).any(|(_, module)| departs(module));
                module.is_registered() && (departs(module) || pending.contains(*id) && with_new())
            };
            for (id, module) in facts.modules.iter().filter(leaving) {
                for kernel in module.pairs.keys() {
                    self.unbuild(id, kernel, Vec::new());
                }
                self.after_builds(Action::Deregister(id.clone()), Vec::new());
            }
        } else {
            // The transaction may remove the sources, so let the source links point to the kept
            // copies.
            let gone = facts.modules.keys().cloned().collect();
            self.mend_links(&gone);
        }
        self.after_builds(Action::Leave, Vec::new());
    }

    /// Returns the modules whose source directory is in `departed` and no longer exists, and the
    /// modules whose removal is pending.
    pub(super) fn gone_modules(&self, departed: &BTreeSet<String>) -> BTreeSet<ModuleId> {
        let facts = self.facts;
        let gone = |(id, module): &(&ModuleId, &ModuleFacts)| {
            let has_departed = departed.contains(&module.source_dir)
                && module.source != SourcePlace::Present
                && module.source_is_absent;
            has_departed || facts.pending.contains(&PendingWork::Remove((*id).clone()))
        };
        facts.modules.iter().filter(gone).map(|(id, _)| id.clone()).collect()
    }

    /// Plans to point the source links of held modules and of the modules in `gone` to the kept
    /// copies of the sources.
    ///
    /// Adds a note for each held module, and for each other module whose source is certainly
    /// absent although no transaction removed it.
    pub(super) fn mend_links(&mut self, gone: &BTreeSet<ModuleId>) {
        let missing =
            |(_, module): &(&ModuleId, &ModuleFacts)| module.source != SourcePlace::Present;
        for (id, module) in self.facts.modules.iter().filter(missing) {
            if gone.contains(id) {
                if module.link == SourceLink::Mendable {
                    self.mend_link(id);
                }
            } else if let Some(note) = self.source_held(id, module) {
                if matches!(note, Note::Held { .. }) && module.link == SourceLink::Mendable {
                    self.mend_link(id);
                }
                self.note(note);
            } else if matches!(module.link, SourceLink::Mendable | SourceLink::Broken)
                && module.source_is_absent
            {
                let (module, dir) = (id.clone(), module.source_dir.clone());
                self.note(Note::SourceMissing { module, dir });
            }
        }
    }

    pub(super) fn mend_link(&mut self, id: &ModuleId) {
        let action = Action::UseKept(id.clone());
        if !self.plan.before.iter().any(|step| step.action == action) {
            self.before_builds(action, Vec::new());
        }
    }

    /// Plans to delete the builds and leftover files of the `kernels` that no longer exist.
    ///
    /// Plans nothing if the install tree could not be read.
    fn remove_gone_kernels(&mut self, kernels: &BTreeSet<KernelRelease>) {
        let facts = self.facts;
        for kernel in kernels.iter().filter(|kernel| facts.is_gone(kernel)) {
            for id in facts.modules.keys() {
                self.unbuild(id, kernel, Vec::new());
            }
            // The files of an installed headers package are not leftovers.
            if !facts.has_headers(kernel) {
                self.after_builds(Action::RemoveLeftovers(kernel.clone()), Vec::new());
            }
        }
    }

    /// Plans to remove a module whose source was removed.
    ///
    /// If its successor is not installed for a kernel, the module stays installed for that kernel:
    /// an old module is better than none.
    pub(super) fn remove_module(&mut self, id: &ModuleId, gone: &BTreeSet<ModuleId>) {
        let facts = self.facts;
        let Some(module) = facts.modules.get(id) else { return };
        let mut kept = false;
        for kernel in module.pairs.keys() {
            let installed = facts.is_installed_or_placed(id, kernel);
            match self.successor(id, kernel, gone) {
                Successor::Missing if installed && !facts.is_gone(kernel) => {
                    self.note(Note::Kept { module: id.clone(), kernel: kernel.clone() });
                    kept = true;
                }
                // Installing the successor uninstalls this version. If the installation fails, this
                // version is still installed, and the step that deletes its build is skipped.
                Successor::Version => self.delete_build(id, kernel, Vec::new()),
                // The objects of the successors are installed over those of this module.
                Successor::Others(successors) if installed => {
                    self.uninstall_after(id, kernel, successors, Vec::new());
                    self.delete_build(id, kernel, Vec::new());
                }
                _ => self.unbuild(id, kernel, Vec::new()),
            }
        }
        if !kept {
            self.after_builds(Action::Deregister(id.clone()), Vec::new());
        }
    }

    /// Plans to finish interrupted uninstallations, except those of modules that this plan
    /// installs.
    fn finish_uninstalling(&mut self) {
        for work in &self.facts.pending {
            if let PendingWork::Uninstall { module, kernel } = work
                && !self.will_have.contains(&(module.clone(), kernel.clone()))
            {
                self.uninstall(module, kernel, vec![Reason::Interrupted]);
            }
        }
    }

    /// Plans to uninstall a module from a kernel, unless the plan already contains that step.
    pub(super) fn uninstall(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        self.uninstall_after(id, kernel, Vec::new(), why);
    }

    /// Plans to uninstall a module from a kernel once `successors` are installed there.
    fn uninstall_after(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        successors: Vec<ModuleId>,
        why: Vec<Reason>,
    ) {
        if self.is_uninstalled(id, kernel) {
            return;
        }
        let work = PendingWork::uninstall(id, kernel);
        if self.is_used_up(&work, Digest::of_nothing()) {
            if self.facts.is_installed_or_placed(id, kernel) {
                self.parked.insert(work);
            }
            return;
        }
        let (module, kernel) = (id.clone(), kernel.clone());
        self.touched.insert(kernel.clone());
        let action = Action::Uninstall { module, kernel, successors };
        self.after_builds(action, why);
    }

    /// Plans to delete a module's build for a kernel, after uninstalling the module if it is
    /// installed.
    pub(super) fn unbuild(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        if self.facts.is_installed_or_placed(id, kernel) {
            self.uninstall(id, kernel, why.clone());
        }
        self.delete_build(id, kernel, why);
    }

    fn delete_build(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        if self.facts.built(id, kernel).is_none() {
            return;
        }
        // Objects that an interrupted run placed are removed with the build, so depmod must run.
        if self.facts.pair(id, kernel).is_some_and(|pair| pair.placed) {
            self.touched.insert(kernel.clone());
        }
        if self.forgotten.insert((id.clone(), kernel.clone())) {
            self.after_builds(Action::Unbuild(id.clone(), kernel.clone()), why);
        }
    }

    /// Sets [`Plan::notes_pending`](super::Plan::notes_pending),
    /// [`Plan::finishes`](super::Plan::finishes) and [`Plan::settles`](super::Plan::settles).
    ///
    /// Departures stay pending for old versions that stay installed, and for copies of kernels,
    /// which are removed at the next boot.
    pub(super) fn note_pending(&mut self, touched: &Touched) {
        let facts = self.facts;
        let kept = |id: &ModuleId| {
            let notes = &self.plan.notes;
            notes.iter().any(|note| matches!(note, Note::Kept { module, .. } if module == id))
        };
        let kept_dirs: BTreeSet<&String> =
            facts.modules.iter().filter(|(id, _)| kept(id)).map(|(_, m)| &m.source_dir).collect();
        let Touched { arrived, departed, .. } = touched;
        let sources = arrived.sources.iter().cloned().map(PendingWork::Source);
        let kernels = arrived.kernels.iter().cloned().map(PendingWork::Kernel);
        let gone_sources = departed.sources.iter().cloned().map(PendingWork::DepartedSource);
        // Kernels that exist are left out: they were installed again, or only their headers were
        // removed.
        let is_owned = |kernel: &&KernelRelease| {
            facts.kernels.get(*kernel).is_some_and(|about| about.kernel.alive && about.owned)
        };
        let gone_kernels = departed.kernels.iter().filter(|kernel| !is_owned(kernel));
        let gone_kernels = gone_kernels.cloned().map(PendingWork::DepartedKernel);
        let recorded: BTreeSet<PendingWork> =
            sources.chain(kernels).chain(gone_sources).chain(gone_kernels).collect();
        let mut finishes = recorded.clone();
        let is_cancelled = |work: &PendingWork| match work {
            PendingWork::DepartedSource(dir) => !departed.sources.contains(dir),
            PendingWork::DepartedKernel(kernel) => !departed.kernels.contains(kernel),
            _ => false,
        };
        let cancelled = facts.pending.iter().filter(|work| is_cancelled(work)).cloned();
        finishes.extend(facts.pending.iter().filter(|work| is_of_one_module(work)).cloned());
        finishes.retain(|work| match work {
            PendingWork::DepartedSource(dir) => !kept_dirs.contains(dir),
            PendingWork::DepartedKernel(kernel) => facts.is_gone(kernel),
            PendingWork::Remove(id) => !kept(id),
            PendingWork::Install { .. } | PendingWork::Uninstall { .. } => {
                !self.parked.contains(work)
            }
            // If the install tree is unreadable, it is unknown whether the kernel exists.
            PendingWork::Kernel(kernel) => facts.kernels_known || facts.is_alive(kernel),
            _ => true,
        });
        finishes.extend(cancelled);
        // Work that an earlier hook of this transaction left pending stays pending.
        finishes.retain(|work| {
            let mut left = facts.tried.iter().filter(|(_, transient)| **transient);
            !left.any(|((module, kernel), _)| match work {
                PendingWork::Source(dir) => {
                    facts.modules.get(module).is_some_and(|m| m.source_dir == *dir)
                }
                PendingWork::Kernel(release) => release == kernel,
                PendingWork::Install { module: id, kernel: release } => {
                    (id, release) == (module, kernel)
                }
                _ => false,
            })
        });
        let transactions = facts.transactions.iter().enumerate();
        let settled = transactions.filter(|(_, transaction)| self.is_settled(transaction));
        self.plan.settles = settled.map(|(number, _)| number).collect();
        self.plan.notes_pending = recorded;
        self.plan.finishes = finishes;
    }
}

/// Returns true for pending work that concerns only one module.
fn is_of_one_module(work: &PendingWork) -> bool {
    matches!(
        work,
        PendingWork::Install { .. } | PendingWork::Uninstall { .. } | PendingWork::Remove(_)
    )
}
