//! Checks that the modules of each kernel are installed as they should be. Changes nothing.

mod fault;
mod kernels;
mod objects;
mod planned;
mod signatures;

use std::collections::BTreeSet;

pub use fault::Fault;

use crate::facts::{self, Scope};
use crate::machine::Machine;
use crate::names::KernelRelease;
use crate::plan::{self, Request};

/// Returns the faults of the modules for `kernels`. If `all` is true, also returns the faults that
/// concern no particular kernel and the faults of removed kernels.
///
/// Like the hooks, assumes that headers in a kernel's own directory belong to a package.
#[must_use]
pub fn faults(machine: &Machine, kernels: &BTreeSet<KernelRelease>, all: bool) -> Vec<Fault> {
    let scope = Scope {
        kernels: (!all).then(|| kernels.clone()),
        trusts_packages: true,
        ..Scope::default()
    };
    let mut facts = facts::read(machine, &scope);
    // /etc/dkms/no-autoinstall disables autoinstall, but the modules are still expected to be
    // installed.
    facts.no_autoinstall = false;
    let request =
        Request::Autoinstall { kernels: Some(kernels.iter().cloned().collect()), only: !all };
    let mut found: BTreeSet<Fault> = match plan::make(&request, &facts) {
        Ok(plan) => planned::faults(machine, &plan).into_iter().collect(),
        // None of the kernels has headers.
        Err(_) => kernels.iter().filter_map(|it| kernels::lacking_headers(&facts, it)).collect(),
    };
    for (release, about) in facts.kernels.iter().filter(|(release, _)| kernels.contains(*release)) {
        if about.kernel.alive {
            found.extend(kernels::without_headers(&facts, release));
            found.extend(objects::faults(machine, about));
        }
    }
    if all {
        found.extend(kernels::removed(machine, &facts));
    }
    found.into_iter().collect()
}
