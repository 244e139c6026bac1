//! The order in which modules are built, from their BUILD_DEPENDS.

use std::collections::BTreeSet;

use crate::facts::Facts;
use crate::names::{KernelRelease, ModuleId, ModuleName};

/// The modules of one kernel, each after those it builds upon.
pub(super) struct Order {
    /// Those that can be put in order.
    pub sorted: Vec<ModuleId>,
    /// Those among the wanted that build upon themselves, directly or not.
    pub circular: Vec<ModuleId>,
}

impl Order {
    /// Orders what is wanted together with what is installed, since that may have to follow.
    pub(super) fn of<'a>(
        facts: &'a Facts,
        kernel: &KernelRelease,
        wanted: impl Iterator<Item = &'a ModuleId>,
    ) -> Self {
        let wanted: BTreeSet<&ModuleId> = wanted.collect();
        let installed = facts.modules.keys().filter(|id| {
            facts.built(id, kernel).is_some_and(|built| built.installed)
                && !wanted.iter().any(|other| other.name == id.name)
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

/// What a module builds upon, directly or not, as far as there are sources for it.
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
