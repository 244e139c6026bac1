//! Checks that the modules of each kernel are installed as they should be. Changes nothing.

mod fault;
mod kernels;
mod objects;
mod planned;
mod signatures;

use std::collections::BTreeSet;

pub use fault::Fault;

use crate::facts::{self, KernelFacts, Scope};
use crate::machine::{Leftovers, Machine};
use crate::names::KernelRelease;
use crate::os::parallel::on_all_cores_with;
use crate::plan::{self, Request};

/// The installed objects to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objects {
    /// All objects.
    All,
    /// The objects that were changed by hand after their installation, when they were checked. All
    /// objects if the kernel requires signatures, because its trust in a key can change.
    Changed,
}

/// Returns the faults of the modules for `kernels`. If `all` is true, also returns the faults that
/// concern no particular kernel and the faults of removed kernels.
///
/// Like the hooks, assumes that headers in a kernel's own directory belong to a package.
#[must_use]
pub fn faults(
    machine: &Machine,
    kernels: &BTreeSet<KernelRelease>,
    all: bool,
    objects: Objects,
) -> Vec<Fault> {
    let scope = Scope {
        kernels: (!all).then(|| kernels.clone()),
        trusts_packages: true,
        ..Scope::default()
    };
    let mut facts = facts::read(machine, &scope);
    // /etc/dkms/no-autoinstall disables autoinstall, but the modules are still expected to be
    // installed.
    facts.no_autoinstall = false;
    if facts.leftovers.entries.is_empty() {
        // The work of the interrupted transaction may have been finished, but pacman refuses the
        // package nevertheless.
        facts.leftovers = Leftovers::without_lock(&machine.trees);
    }
    let request =
        Request::Autoinstall { kernels: Some(kernels.iter().cloned().collect()), only: !all };
    let mut found: BTreeSet<Fault> = match plan::make(&request, &facts) {
        Ok(plan) => planned::faults(machine, &facts, &plan).into_iter().collect(),
        // None of the kernels has headers.
        Err(_) => {
            let lacking = kernels.iter().filter_map(|it| kernels::lacking_headers(&facts, it));
            lacking.chain(planned::interruptions(&facts)).collect()
        }
    };
    let is_checked =
        |about: &&KernelFacts| about.kernel.alive && kernels.contains(&about.kernel.release);
    let checked: Vec<&KernelFacts> = facts.kernels.values().filter(is_checked).collect();
    let without_headers =
        checked.iter().filter_map(|it| kernels::without_headers(&facts, &it.kernel.release));
    found.extend(without_headers);
    // Each kernel has some work that cannot be divided, such as reading Module.symvers.
    let of_objects =
        on_all_cores_with(&checked, || (), |(), about| objects::faults(machine, about, objects));
    found.extend(of_objects.into_iter().flatten());
    if all {
        found.extend(kernels::removed(machine, &facts));
    }
    found.into_iter().collect()
}
