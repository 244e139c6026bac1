//! Planning commands that are about a kernel with all its modules: `match`, and what the package
//! of a kernel calls when it comes and goes.

use super::refusals;
use super::{Note, Planner, Verb};
use crate::conf::Autoinstall;
use crate::dkms_tree::Reason;
use crate::facts::SourceLink;
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId, ModuleName};

impl Planner<'_> {
    /// `dkms match`: what is installed for `template` is installed for `kernel`, too.
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
            let message = format!("{name} is not in the dkms tree: see dkms status");
            return Err(Failure::new(3, message));
        }
        let installed = |id: &&ModuleId| {
            only.is_none_or(|name| id.name == *name)
                && facts.built(id, template).is_some_and(|built| built.installed)
        };
        let modules: Vec<&ModuleId> = facts.modules.keys().filter(installed).collect();
        if modules.is_empty() {
            let text = format!("nothing is installed for {template}: there is nothing to match");
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

    /// `dkms kernel_preinst` and `kernel_prerm`: what was built for `kernel` is forgotten, either
    /// of the modules that autoinstall brings back, or of all. What cannot be asked whether it is
    /// one of them fails alone.
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
