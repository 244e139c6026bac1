//! Planning what a person types: one module, checked in dkms's order, with dkms's exit codes.

use super::module_for_kernel::{BuildPolicy, WantedBuilds};
use super::refusals::{broken, headers_note, no_headers, no_headers_at_all, refuse};
use super::{Action, Note, Planner, Verb};
use crate::dkms_tree::Reason;
use crate::facts::{Import, Lack, ModuleFacts, SourceLink, SourcePlace};
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId};

impl Planner<'_> {
    /// `dkms add`.
    fn add(&mut self, id: &ModuleId) -> Result<(), Failure> {
        let module = self.facts.modules.get(id);
        if module.is_some_and(|m| m.is_registered() && m.link != SourceLink::Broken) {
            return Err(refuse(3, format!("{id} is added already")));
        }
        self.check_source(id, module)?;
        self.register(id);
        Ok(())
    }

    /// `dkms add` of what comes from elsewhere.
    fn add_import(&mut self, import: &Import, force: bool) -> Result<(), Failure> {
        let id = &import.id;
        let module = self.facts.modules.get(id);
        if module.is_some_and(|m| m.is_registered() && m.link != SourceLink::Broken) {
            match (import.packed, force) {
                (true, true) => {}
                (true, false) => return Err(refuse(8, format!("{id} is added already"))),
                (false, _) => return Err(refuse(3, format!("{id} is added already"))),
            }
        }
        self.check_source(id, module)?;
        if let Some(from) = &import.source {
            let (module, from) = (id.clone(), from.clone());
            self.before_builds(Action::TakeIn { module, from }, vec![Reason::Requested]);
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
                return Err(refuse(4, format!("{id} has no dkms.conf in /usr/src/{dir}")));
            }
            _ => {
                let dir = id.source_dir();
                return Err(refuse(
                    2,
                    format!("{id} has no source: there is no directory /usr/src/{dir}"),
                ));
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

    /// `dkms add`, `build`, `install`, `uninstall`, `unbuild` and `remove`.
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
            return Err(broken(id));
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
                let Some(module) = module.filter(|_| registered) else {
                    return Err(refuse(3, format!("{id} is not added: see dkms status")));
                };
                let built: Vec<KernelRelease> = built_for(module);
                self.take_from(verb, id, kernels.unwrap_or(&built));
                if verb == Verb::Remove {
                    self.forget_if_nothing_is_left(id, module);
                }
                Ok(())
            }
        }
    }

    /// Returns the kernels that `--all` means for `build` and `install`. A kernel that cannot be
    /// built for is worth a note, not a failure.
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

    /// Returns the installed kernels, without copies that are kept until the next boot.
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

    /// Plans to build, and to install if that is the verb, modules for kernels.
    pub(super) fn build_for(
        &mut self,
        verb: Verb,
        modules: &[&ModuleId],
        kernels: &[KernelRelease],
        force: bool,
    ) {
        let will = BuildPolicy { retry: true, install: verb == Verb::Install, force, strict: true };
        let mut wanted = WantedBuilds::new();
        for id in modules {
            self.register(id);
            self.want(verb, id, kernels, force, &mut wanted);
        }
        self.bring(&wanted, will);
    }

    /// Adds to what is wanted, where nothing speaks against it from the start.
    fn want(
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
                let why = format!("it is not meant for this kernel: {rule}");
                self.fail(id, kernel, refuse(77, why));
            } else if !headers && !built {
                self.fail(id, kernel, no_headers(self.facts, kernel));
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

    /// What is built needs no headers to be installed.
    fn install_without_headers(
        &mut self,
        verb: Verb,
        id: &ModuleId,
        kernel: &KernelRelease,
        force: bool,
    ) {
        let installed = self.facts.built(id, kernel).is_some_and(|built| built.installed);
        if verb == Verb::Install && (force || !installed) {
            self.install(id, kernel, vec![Reason::Requested]);
        } else {
            let state = if installed { "installed" } else { "built" };
            self.note(Note::Already { module: id.clone(), kernel: kernel.clone(), state });
        }
    }

    fn take_from(&mut self, verb: Verb, id: &ModuleId, kernels: &[KernelRelease]) {
        for kernel in kernels {
            match self.facts.built(id, kernel) {
                None => self.note(Note::Already {
                    module: id.clone(),
                    kernel: kernel.clone(),
                    state: "not built",
                }),
                Some(built) if verb == Verb::Uninstall && !built.installed => {
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
        }
    }

    fn forget_if_nothing_is_left(&mut self, id: &ModuleId, module: &ModuleFacts) {
        let left = built_for(module)
            .into_iter()
            .any(|kernel| !self.forgotten.contains(&(id.clone(), kernel)));
        if !left && !module.elsewhere {
            self.after_builds(Action::Deregister(id.clone()), vec![Reason::Requested]);
        }
    }
}

fn built_for(module: &ModuleFacts) -> Vec<KernelRelease> {
    module
        .pairs
        .iter()
        .filter(|(_, pair)| pair.built.is_some())
        .map(|(kernel, _)| kernel.clone())
        .collect()
}
