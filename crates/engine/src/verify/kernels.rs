//! The faults of kernels and of the dkms tree: missing headers, missing sources, and the files that
//! removed kernels left behind.

use std::collections::BTreeSet;

use super::Fault;
use crate::dkms_tree::TreeState;
use crate::facts::Facts;
use crate::machine::Machine;
use crate::names::KernelRelease;
use crate::plan;
use crate::status;

/// Returns a fault if `kernel` has modules, but no headers for building them again.
pub(super) fn without_headers(facts: &Facts, kernel: &KernelRelease) -> Option<Fault> {
    let has_modules = facts.modules.keys().any(|id| facts.is_installed(id, kernel));
    has_modules.then(|| lacking_headers(facts, kernel)).flatten()
}

/// Returns a fault if `kernel` has no headers.
pub(super) fn lacking_headers(facts: &Facts, kernel: &KernelRelease) -> Option<Fault> {
    // The plan contains a note about an incomplete kernel.
    let lacks = !facts.has_headers(kernel) && !facts.is_incomplete_kernel(kernel);
    lacks.then(|| Fault::new(Some(kernel), None, plan::headers_note(facts, kernel).to_string()))
}

/// Returns a fault for each module whose objects or build remain for a removed kernel, and for each
/// module without a usable source.
pub(super) fn removed(machine: &Machine, facts: &Facts) -> Vec<Fault> {
    let mut found = Vec::new();
    let is_dead =
        |kernel: &&KernelRelease| !facts.is_alive(kernel) && !facts.is_left_to_pacman(kernel);
    for kernel in facts.kernels.keys().filter(is_dead) {
        let Some(about) = facts.kernels.get(kernel) else { continue };
        for id in about.inventory.modules() {
            let problem = format!("{id}: its objects remain for {kernel}, which has been removed");
            let advice = format!("run: dkms uninstall {id} -k {kernel}");
            found.push(Fault::new(Some(kernel), Some(id), problem).with_advice(advice));
        }
    }
    if !facts.kernels_known {
        return found;
    }
    let state = TreeState::read(&machine.trees);
    for added in &state.modules {
        // The plan contains a note about a held module.
        let is_held = facts.modules.get(&added.id).is_some_and(|module| facts.is_held(module));
        let advice = (added.is_broken() && !is_held)
            .then(|| status::advice_for_broken(&machine.trees, &added.id));
        found.extend(advice.map(|advice| Fault::new(None, Some(&added.id), advice)));
        let kernels: BTreeSet<&KernelRelease> =
            added.kernels.iter().map(|built| &built.kernel).collect();
        for kernel in kernels {
            if facts.kernels.contains_key(kernel) || facts.kernel_links.contains(kernel) {
                continue;
            }
            let id = &added.id;
            let problem =
                format!("{id}: build for {kernel} remains, but that kernel is not installed");
            let advice = format!("run: dkms unbuild {id} -k {kernel}");
            found.push(Fault::new(Some(kernel), Some(id), problem).with_advice(advice));
        }
    }
    found
}
