//! Plans the commands for all modules of a kernel: `match`, `kernel_preinst` and `kernel_prerm`.

use super::refusals;
use super::{Note, Planner, Verb};
use crate::conf::Autoinstall;
use crate::dkms_tree::Reason;
use crate::facts::SourceLink;
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId, ModuleName};

impl Planner<'_> {
    /// Plans `dkms match`: for `kernel`, installs the modules that are installed for `template`.
    ///
    /// If `only` is set, installs only the module with that name.
    pub(super) fn do_as_for(
        &mut self,
        template: &KernelRelease,
        kernel: &KernelRelease,
        only: Option<&ModuleName>,
        force: bool,
    ) -> Result<(), Failure> {
        let facts = self.facts;
        if let Some(name) = only
            && !facts.versions(name).any(|(_, module)| module.is_registered())
        {
            let refusal = Failure::new(3, format!("{name}: not added"));
            return Err(refusal.with_hint("see: dkms status"));
        }
        let installed = |id: &&ModuleId| {
            only.is_none_or(|name| id.name == *name) && facts.is_installed(id, template)
        };
        let modules: Vec<&ModuleId> = facts.modules.keys().filter(installed).collect();
        if modules.is_empty() {
            let text = format!("{template}: no modules installed; nothing to match");
            self.note(Note::Problem(text));
            return Ok(());
        }
        if !facts.has_headers(kernel) {
            return Err(refusals::no_headers(facts, kernel));
        }
        let (broken, whole): (Vec<&ModuleId>, Vec<&ModuleId>) =
            modules.into_iter().partition(|id| self.is_broken(id));
        for id in broken {
            self.fail(id, kernel, refusals::broken(id));
        }
        self.build_for(Verb::Install, &whole, std::slice::from_ref(kernel), force);
        Ok(())
    }

    /// Plans `dkms kernel_preinst` and `kernel_prerm`, which delete the builds for a kernel.
    ///
    /// If `only_willing` is set, deletes only the builds of modules with AUTOINSTALL=yes. In that
    /// case, a module whose dkms.conf cannot be read fails, but the other modules are still
    /// planned.
    pub(super) fn clear(&mut self, kernel: &KernelRelease, only_willing: bool) {
        let facts = self.facts;
        for id in facts.modules.keys().filter(|id| facts.built(id, kernel).is_some()) {
            let conf = facts.pair(id, kernel).and_then(|pair| pair.conf.as_ref());
            match conf {
                _ if !only_willing => self.unbuild(id, kernel, vec![Reason::Requested]),
                Some(Ok(conf)) if conf.autoinstall == Autoinstall::Yes => {
                    self.unbuild(id, kernel, vec![Reason::Requested]);
                }
                Some(Err(problem)) => {
                    self.fail(id, kernel, problem.clone());
                }
                _ if self.is_broken(id) => {
                    self.fail(id, kernel, refusals::broken(id));
                }
                _ => {}
            }
        }
    }

    fn is_broken(&self, id: &ModuleId) -> bool {
        self.facts.modules.get(id).is_some_and(|module| module.link == SourceLink::Broken)
    }
}
