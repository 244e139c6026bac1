//! Skips the modules that an outer run, which started this run, is already building or installing.
//!
//! A module's script may run `dkms autoinstall`, or may run pacman, which starts our hooks. If this
//! run built the same module, the script would be started again from within itself.

use super::Planner;
use super::module_for_kernel::WantedBuilds;
use crate::dkms_tree::PendingWork;
use crate::names::{KernelRelease, ModuleId};

impl Planner<'_> {
    /// Removes from `wanted` the modules that the outer run has begun to build, install or remove.
    pub(super) fn leave_begun_by_outer_run(&self, wanted: &mut WantedBuilds) {
        self.leave(wanted, |work, module, kernel| match work {
            PendingWork::Install { module: id, kernel: release }
            | PendingWork::Uninstall { module: id, kernel: release } => {
                (id, release) == (module, kernel)
            }
            PendingWork::Remove(id) => id == module,
            _ => false,
        });
    }

    /// Removes from `wanted` the modules that the outer run, such as a hook, has yet to build.
    pub(super) fn leave_planned_by_outer_run(&self, wanted: &mut WantedBuilds) {
        self.leave(wanted, |work, module, kernel| {
            let source = self.facts.modules.get(module).map(|facts| &facts.source_dir);
            match work {
                PendingWork::Source(dir) => source == Some(dir),
                PendingWork::Kernel(release) => release == kernel,
                PendingWork::Transaction { sources, kernels } => {
                    kernels.contains(kernel) || source.is_some_and(|dir| sources.contains(dir))
                }
                _ => false,
            }
        });
    }

    fn leave(
        &self,
        wanted: &mut WantedBuilds,
        is_of: impl Fn(&PendingWork, &ModuleId, &KernelRelease) -> bool,
    ) {
        for (kernel, modules) in wanted {
            modules.retain(|id, _| !self.facts.outer.iter().any(|work| is_of(work, id, kernel)));
        }
    }
}
