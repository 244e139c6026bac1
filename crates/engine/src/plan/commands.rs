//! Plans the commands for one module. The order of the checks and the exit codes are those of dkms.

use std::collections::BTreeSet;

use super::module_for_kernel::{BuildPolicy, WantedBuilds};
use super::refusals::{
    already_added, broken, headers_note, no_headers_at_all, no_headers_for_module, refuse,
    unlinked_source,
};
use super::{Action, Note, Planner, Step, Verb};
use crate::dkms_tree::{PendingWork, Reason};
use crate::facts::{Import, Lack, ModuleFacts, SourceLink, SourcePlace, Subjects};
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId};

impl Planner<'_> {
    /// Plans `dkms add` for a module in the source tree.
    fn add(&mut self, id: &ModuleId) -> Result<(), Failure> {
        let module = self.facts.modules.get(id);
        if module.is_some_and(|m| m.is_registered() && m.link != SourceLink::Broken) {
            return Err(already_added(3, id));
        }
        self.check_source(id, module)?;
        self.register(id);
        Ok(())
    }

    /// Plans `dkms add` for a module that is imported from a directory or an archive.
    fn add_import(&mut self, import: &Import, force: bool) -> Result<(), Failure> {
        let id = &import.id;
        let module = self.facts.modules.get(id);
        if module.is_some_and(|m| m.is_registered() && m.link != SourceLink::Broken) {
            match (import.packed, force) {
                (true, true) => {}
                (true, false) => return Err(already_added(8, id)),
                (false, _) => return Err(already_added(3, id)),
            }
        }
        self.check_source(id, module)?;
        if let Some(from) = &import.source {
            let (module, from) = (id.clone(), from.clone());
            self.before_builds(Action::ImportSource { module, from }, vec![Reason::Requested]);
        }
        self.register(id);
        for build in &import.builds {
            let (module, build) = (id.clone(), build.clone());
            self.before_builds(
                Action::Load { module, build, replace: force },
                vec![Reason::Requested],
            );
        }
        Ok(())
    }

    fn check_source(&self, id: &ModuleId, module: Option<&ModuleFacts>) -> Result<(), Failure> {
        match module {
            Some(m) if m.source != SourcePlace::Missing => {}
            _ if self.facts.lacking.get(id) == Some(&Lack::Conf) => {
                let dir = id.source_dir();
                return Err(refuse(4, format!("{id}: no dkms.conf in /usr/src/{dir}")));
            }
            _ => {
                let dir = id.source_dir();
                return Err(refuse(2, format!("{id}: no source: /usr/src/{dir} does not exist")));
            }
        }
        let bad_conf = module
            .iter()
            .flat_map(|m| m.pairs.values())
            .find_map(|pair| pair.conf.as_ref()?.as_ref().err());
        match bad_conf {
            Some(problem) => Err(problem.clone()),
            None => Ok(()),
        }
    }

    /// Plans `dkms add`, `build`, `install`, `uninstall`, `unbuild` or `remove`.
    pub(super) fn command(
        &mut self,
        verb: Verb,
        id: &ModuleId,
        kernels: Option<&[KernelRelease]>,
        force: bool,
    ) -> Result<(), Failure> {
        let module = self.facts.modules.get(id);
        let unlinked = self.facts.lacking.get(id) == Some(&Lack::Link);
        if verb != Verb::Add && (unlinked || module.is_some_and(|m| m.link == SourceLink::Broken)) {
            return Err(match unlinked {
                true => unlinked_source(id),
                false => broken(id),
            });
        }
        let registered = module.is_some_and(ModuleFacts::is_registered);
        match verb {
            Verb::Add => match &self.facts.import {
                Some(import) => self.add_import(import, force),
                None => self.add(id),
            },
            Verb::Build | Verb::Install => {
                if !registered {
                    self.check_source(id, module)?;
                }
                let kernels = match kernels {
                    Some(kernels) => kernels.to_vec(),
                    None => self.suitable_kernels(id)?,
                };
                self.build_for(verb, &[id], &kernels, force);
                Ok(())
            }
            Verb::Uninstall | Verb::Unbuild | Verb::Remove => {
                let is_placed = |module: &&ModuleFacts| module.pairs.values().any(|it| it.placed);
                let module = module.filter(|module| registered || is_placed(module));
                let Some(module) = module else {
                    let refusal = refuse(3, format!("{id}: not added"));
                    return Err(refusal.with_hint("see: dkms status"));
                };
                let is_there = |kernel: &&KernelRelease| {
                    self.facts.built(id, kernel).is_some()
                        || self.facts.is_installed_or_placed(id, kernel)
                };
                let all: Vec<KernelRelease> =
                    module.pairs.keys().filter(is_there).cloned().collect();
                self.remove_from(verb, id, kernels.unwrap_or(&all));
                if verb == Verb::Remove {
                    self.deregister_if_unbuilt(id, module);
                }
                self.cancel_pending(id, module, kernels);
                Ok(())
            }
        }
    }

    /// Returns the kernels that `--all` selects for `build` and `install`.
    ///
    /// Adds a note for each kernel for which the module cannot be built. Returns `Err` if no kernel
    /// is suitable and no installed kernel has headers.
    fn suitable_kernels(&mut self, id: &ModuleId) -> Result<Vec<KernelRelease>, Failure> {
        let facts = self.facts;
        let (mut suitable, mut lacking) = (Vec::new(), Vec::new());
        let installed = self.installed_kernels();
        for kernel in &installed {
            if let Some(why) = facts.conf(id, kernel).and_then(|conf| conf.excluded.clone()) {
                self.note(Note::Excluded { module: id.clone(), kernel: kernel.clone(), why });
            } else if facts.has_headers(kernel) || facts.built(id, kernel).is_some() {
                suitable.push(kernel.clone());
            } else {
                lacking.push(kernel);
            }
        }
        if suitable.is_empty() && !installed.iter().any(|kernel| facts.has_headers(kernel)) {
            return Err(no_headers_at_all(facts, &lacking));
        }
        for kernel in lacking {
            self.note(headers_note(facts, kernel));
        }
        Ok(suitable)
    }

    /// Returns the installed kernels, except copies that are kept until the next boot. Adds a note
    /// for each copy.
    pub(super) fn installed_kernels(&mut self) -> Vec<KernelRelease> {
        let (mut installed, mut copies) = (Vec::new(), Vec::new());
        for (release, about) in self.facts.kernels.iter().filter(|(_, about)| about.kernel.alive) {
            if about.owned { &mut installed } else { &mut copies }.push(release.clone());
        }
        for copy in copies {
            self.note(Note::Copy(copy));
        }
        installed
    }

    /// Plans `verb`, which is `build` or `install`, for several modules and kernels.
    pub(super) fn build_for(
        &mut self,
        verb: Verb,
        modules: &[&ModuleId],
        kernels: &[KernelRelease],
        force: bool,
    ) {
        let policy =
            BuildPolicy { retry: true, install: verb == Verb::Install, force, strict: true };
        let mut wanted = WantedBuilds::new();
        for id in modules {
            self.register(id);
            self.add_wanted(verb, id, kernels, force, &mut wanted);
        }
        self.plan_builds(&wanted, policy);
    }

    /// Adds a module to `wanted` for each kernel that has headers.
    ///
    /// If dkms.conf excludes a kernel, the module fails for it. If a kernel has no headers, the
    /// module fails for it unless it is already built.
    fn add_wanted(
        &mut self,
        verb: Verb,
        id: &ModuleId,
        kernels: &[KernelRelease],
        force: bool,
        wanted: &mut WantedBuilds,
    ) {
        for kernel in kernels {
            let excluded = self
                .facts
                .pair(id, kernel)
                .and_then(|pair| pair.conf.as_ref()?.as_ref().ok()?.excluded.clone());
            let headers = self.facts.kernels.get(kernel).is_some_and(|k| k.has_headers());
            let built = self.facts.built(id, kernel).is_some();
            if let Some(rule) = excluded {
                self.fail(id, kernel, refuse(77, format!("excluded: {rule}")));
            } else if !headers && !built {
                self.fail(id, kernel, no_headers_for_module(self.facts, kernel));
            } else if !headers {
                self.install_without_headers(verb, id, kernel, force);
            } else {
                wanted
                    .entry(kernel.clone())
                    .or_default()
                    .insert(id.clone(), vec![Reason::Requested]);
            }
        }
    }

    /// Plans `build` or `install` for a kernel without headers. The module is already built, so it
    /// can still be installed.
    fn install_without_headers(
        &mut self,
        verb: Verb,
        id: &ModuleId,
        kernel: &KernelRelease,
        force: bool,
    ) {
        let installed = self.facts.is_installed(id, kernel);
        if verb == Verb::Install && (force || !installed) {
            self.install(id, kernel, vec![Reason::Requested]);
        } else {
            let state = if installed { "installed" } else { "built" };
            self.note(Note::Already { module: id.clone(), kernel: kernel.clone(), state });
        }
    }

    fn remove_from(&mut self, verb: Verb, id: &ModuleId, kernels: &[KernelRelease]) {
        for kernel in kernels {
            let is_installed = self.facts.is_installed_or_placed(id, kernel);
            match self.facts.built(id, kernel) {
                None if is_installed => self.uninstall(id, kernel, vec![Reason::Requested]),
                None => self.note(Note::Already {
                    module: id.clone(),
                    kernel: kernel.clone(),
                    state: "not built",
                }),
                Some(_) if verb == Verb::Uninstall && !is_installed => {
                    self.note(Note::Already {
                        module: id.clone(),
                        kernel: kernel.clone(),
                        state: "not installed",
                    });
                }
                Some(_) if verb == Verb::Uninstall => {
                    self.uninstall(id, kernel, vec![Reason::Requested]);
                }
                Some(_) => self.unbuild(id, kernel, vec![Reason::Requested]),
            }
            self.sweep_if_removed(id, kernel);
        }
    }

    /// Cancels the pending work that would undo a command for `kernels`. `None` means all kernels.
    fn cancel_pending(
        &mut self,
        id: &ModuleId,
        module: &ModuleFacts,
        kernels: Option<&[KernelRelease]>,
    ) {
        let facts = self.facts;
        let deregister = |step: &Step| step.action == Action::Deregister(id.clone());
        let removes = self.plan.after.iter().any(deregister);
        let all = removes || kernels.is_none();
        let is_undone = |work: &&PendingWork| match work {
            PendingWork::Install { module, kernel } => {
                module == id && (all || kernels.is_some_and(|it| it.contains(kernel)))
            }
            PendingWork::Uninstall { module, .. } | PendingWork::Remove(module) => {
                removes && module == id
            }
            _ => false,
        };
        let undone: BTreeSet<PendingWork> =
            facts.pending.iter().filter(is_undone).cloned().collect();
        let none = Subjects::default();
        let touched = self.touched(&none, &none);
        if all && touched.concerns_source(&module.source_dir) {
            // The other work of the same entries and transactions stays pending.
            self.note_pending(&touched);
            self.plan.finishes.retain(|work| match work {
                PendingWork::Source(dir) => *dir == module.source_dir,
                PendingWork::DepartedSource(dir) => removes && *dir == module.source_dir,
                _ => false,
            });
        }
        self.plan.finishes.extend(undone);
    }

    /// Plans to remove the directory of a removed kernel if it contains objects of no other module.
    fn sweep_if_removed(&mut self, id: &ModuleId, kernel: &KernelRelease) {
        let Some(about) = self.facts.kernels.get(kernel) else { return };
        let is_removed = self.facts.kernels_known && !about.kernel.alive && !about.has_headers();
        if is_removed && about.inventory.modules().iter().all(|other| *other == id) {
            self.after_builds(Action::RemoveLeftovers(kernel.clone()), Vec::new());
        }
    }

    fn deregister_if_unbuilt(&mut self, id: &ModuleId, module: &ModuleFacts) {
        let left = built_kernels(module)
            .into_iter()
            .any(|kernel| !self.forgotten.contains(&(id.clone(), kernel)));
        if !left && !module.elsewhere {
            self.after_builds(Action::Deregister(id.clone()), vec![Reason::Requested]);
        }
    }
}

fn built_kernels(module: &ModuleFacts) -> Vec<KernelRelease> {
    module
        .pairs
        .iter()
        .filter(|(_, pair)| pair.built.is_some())
        .map(|(kernel, _)| kernel.clone())
        .collect()
}
