//! Determines the build order of modules from their BUILD_DEPENDS.

use std::collections::BTreeSet;

use crate::facts::Facts;
use crate::names::{KernelRelease, ModuleId, ModuleName};

/// The build order of the modules for one kernel: dependencies first.
pub(super) struct Order {
    /// The modules without circular dependencies, in build order.
    pub sorted: Vec<ModuleId>,
    /// The wanted modules that are part of a dependency cycle or depend on one.
    pub circular: Vec<ModuleId>,
}

impl Order {
    /// Orders the modules in `wanted` and the installed modules.
    ///
    /// Installed modules are included because they need a rebuild if a dependency changes.
    pub(super) fn of<'a>(
        facts: &'a Facts,
        kernel: &KernelRelease,
        wanted: impl Iterator<Item = &'a ModuleId>,
    ) -> Self {
        let wanted: BTreeSet<&ModuleId> = wanted.collect();
        let installed = facts.modules.keys().filter(|id| {
            facts.is_installed(id, kernel) && !wanted.iter().any(|other| other.name == id.name)
        });
        let mut left: BTreeSet<&ModuleId> = wanted.iter().copied().chain(installed).collect();
        let mut sorted = Vec::new();
        while !left.is_empty() {
            let names: BTreeSet<&ModuleName> = left.iter().map(|id| &id.name).collect();
            let waits = |id: &ModuleId| {
                facts.conf(id, kernel).is_some_and(|c| c.depends.iter().any(|d| names.contains(d)))
            };
            let ready: Vec<&ModuleId> = left.iter().copied().filter(|id| !waits(id)).collect();
            if ready.is_empty() {
                break;
            }
            for id in ready {
                left.remove(id);
                sorted.push(id.clone());
            }
        }
        let circular = left.into_iter().filter(|id| wanted.contains(id)).cloned().collect();
        Self { sorted, circular }
    }
}

/// Returns the modules in `newest` on which a module depends directly or indirectly.
pub(super) fn needed_by<'a>(
    facts: &'a Facts,
    id: &ModuleId,
    kernel: &KernelRelease,
    newest: &BTreeSet<&'a ModuleId>,
) -> BTreeSet<&'a ModuleId> {
    let mut needed = BTreeSet::new();
    let mut open = vec![id];
    while let Some(next) = open.pop() {
        let Some(conf) = facts.conf(next, kernel) else { continue };
        for dependency in newest.iter().filter(|other| conf.depends.contains(&other.name)) {
            if needed.insert(*dependency) {
                open.push(dependency);
            }
        }
    }
    needed
}
