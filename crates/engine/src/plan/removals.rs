//! Plans the removal of modules whose sources or kernels were removed.
//!
//! A module is removed only if a transaction touched its source or kernel, or if its removal is
//! pending. A source that is missing for another reason, such as an unmounted `/usr/src`, removes
//! nothing.

use std::collections::BTreeSet;

use super::arrivals::Touched;
use super::{Action, Note, Planner};
use crate::dkms_tree::{PendingWork, Reason};
use crate::facts::{ModuleFacts, SourceLink, SourcePlace};
use crate::names::{KernelRelease, ModuleId};

/// For one kernel, the state of the version that replaces a removed version.
enum Successor {
    /// Another version is installed, or this plan installs one.
    Installed,
    /// Another version exists, but BUILD_EXCLUSIVE_* excludes it for this kernel.
    Excluded,
    /// Another version has been added, but is not installed for the kernel.
    Missing,
    /// There is no other version.
    None,
}

impl Planner<'_> {
    /// Plans to remove the modules of touched sources and kernels that no longer exist.
    pub(super) fn remove_gone(&mut self, touched: &Touched) {
        self.finish_uninstalling();
        let mut kernels = touched.kernels.clone();
        let left_over = self.facts.pending.iter().filter_map(|work| match work {
            PendingWork::LeftOver(kernel) => Some(kernel.clone()),
            _ => None,
        });
        kernels.extend(left_over);
        self.remove_gone_kernels(&kernels);
        for id in &touched.gone {
            self.remove_module(id, &touched.gone);
        }
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
            // Old versions that stayed installed because the new version failed are removed too.
            let pending = self.touched(&BTreeSet::new(), &BTreeSet::new()).gone;
            let leaving = |(id, module): &(&ModuleId, &ModuleFacts)| {
                module.is_registered()
                    && (sources.contains(&module.source_dir) || pending.contains(*id))
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

    /// Returns the modules whose source directory is in `sources` but no longer exists, and the
    /// modules whose removal is pending.
    pub(super) fn gone_modules(&self, sources: &BTreeSet<String>) -> BTreeSet<ModuleId> {
        let facts = self.facts;
        let gone = |(id, module): &(&ModuleId, &ModuleFacts)| {
            let removed =
                sources.contains(&module.source_dir) && module.source != SourcePlace::Present;
            removed || facts.pending.contains(&PendingWork::Remove((*id).clone()))
        };
        facts.modules.iter().filter(gone).map(|(id, _)| id.clone()).collect()
    }

    /// Plans to point the source links of the modules in `gone` to the kept copies of their
    /// sources.
    ///
    /// Adds a note for every other module whose source is missing.
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
        if !self.plan.before.iter().any(|step| step.action == action) {
            self.before_builds(action, Vec::new());
        }
    }

    /// Plans to delete the builds and leftover files of the `kernels` that no longer exist.
    ///
    /// Plans nothing if the install tree could not be read.
    fn remove_gone_kernels(&mut self, kernels: &BTreeSet<KernelRelease>) {
        let facts = self.facts;
        if !facts.kernels_known {
            return;
        }
        for kernel in kernels.iter().filter(|kernel| !facts.is_alive(kernel)) {
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
    /// The module stays installed for a kernel if the new version is not installed there: an old
    /// module is better than none.
    fn remove_module(&mut self, id: &ModuleId, gone: &BTreeSet<ModuleId>) {
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
                // Installing the successor uninstalls this version. If that fails, this version is
                // still installed, and the step that deletes its build is skipped.
                Successor::Installed => self.delete_build(id, kernel, Vec::new()),
                _ => self.unbuild(id, kernel, Vec::new()),
            }
        }
        if !kept {
            self.after_builds(Action::Deregister(id.clone()), Vec::new());
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

    /// Plans to finish interrupted uninstallations, except of modules that this plan installs.
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
        let action = Action::Uninstall(id.clone(), kernel.clone());
        if self.plan.after.iter().any(|step| step.action == action) {
            return;
        }
        self.touched.insert(kernel.clone());
        self.after_builds(action, why);
    }

    /// Plans to delete a module's build for a kernel, after uninstalling the module if it is
    /// installed.
    pub(super) fn unbuild(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        if let Some(built) = self.facts.built(id, kernel) {
            if built.installed {
                self.uninstall(id, kernel, why.clone());
            }
            self.delete_build(id, kernel, why);
        }
    }

    fn delete_build(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        let Some(built) = self.facts.built(id, kernel) else { return };
        // Objects that an interrupted run placed are removed with the build, so depmod must run.
        if built.record.as_ref().is_some_and(|record| !record.placed.is_empty()) {
            self.touched.insert(kernel.clone());
        }
        if self.forgotten.insert((id.clone(), kernel.clone())) {
            self.after_builds(Action::Unbuild(id.clone(), kernel.clone()), why);
        }
    }

    /// Sets [`Plan::notes_pending`](super::Plan::notes_pending) and
    /// [`Plan::finishes`](super::Plan::finishes).
    ///
    /// Work stays pending for old versions that stay installed, and for copies of kernels, which
    /// are removed at the next boot.
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
                // Each source and kernel has its own entry above.
                PendingWork::Transaction { .. }
                | PendingWork::Source(_)
                | PendingWork::Kernel(_) => false,
                // The `initramfs` crate finishes this work.
                PendingWork::Image { .. } => false,
            };
            if finished {
                finishes.insert(work.clone());
            }
        }
        // An earlier hook of this transaction left this work pending.
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
        let sources = touched.sources.iter().cloned().map(PendingWork::Source);
        let mut recorded: BTreeSet<PendingWork> =
            sources.chain(touched.kernels.iter().cloned().map(PendingWork::Kernel)).collect();
        recorded
            .extend(touched.kernels.iter().filter(|k| copy(k)).cloned().map(PendingWork::LeftOver));
        self.plan.notes_pending = recorded;
        self.plan.finishes = finishes;
    }
}
