//! The faults of kernels: missing headers, and files left behind by removed kernels.

use std::collections::BTreeSet;

use super::Fault;
use crate::dkms_tree::TreeState;
use crate::facts::Facts;
use crate::machine::Machine;
use crate::names::KernelRelease;
use crate::plan;

/// Returns a fault if `kernel` has modules, but no headers for building them again.
pub(super) fn without_headers(facts: &Facts, kernel: &KernelRelease) -> Option<Fault> {
    let has_modules = facts.modules.keys().any(|id| facts.is_installed(id, kernel));
    let lacks = has_modules && !facts.has_headers(kernel);
    lacks.then(|| Fault::new(Some(kernel), None, plan::headers_note(facts, kernel).to_string()))
}

/// Returns a fault for each directory and each build left behind by a removed kernel.
pub(super) fn removed(machine: &Machine, facts: &Facts) -> Vec<Fault> {
    let mut found = Vec::new();
    // A headers package can be installed without its kernel.
    let is_dead = |kernel: &&KernelRelease| !facts.is_alive(kernel) && !facts.has_headers(kernel);
    for kernel in facts.kernels.keys().filter(is_dead) {
        let dir = machine.trees.kernel(kernel);
        let problem = format!("{kernel}: removed, but its directory remains: {}", dir.display());
        let advice = format!("run: rm -r {}", dir.display());
        found.push(Fault::new(Some(kernel), None, problem).with_advice(advice));
    }
    if !facts.kernels_known {
        return found;
    }
    let state = TreeState::read(&machine.trees);
    for added in &state.modules {
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
