//! Chooses the key that signs the objects for a kernel, and makes it.

mod chroot;
mod decide;
mod keys;
mod mok;

pub(crate) use decide::{certificate, signer};
pub use mok::{Mok, generate_mok};

use crate::machine::{Kernel, Machine};
use crate::objects::ObjectName;

/// Warns that one object could not be signed.
pub(crate) fn warn(machine: &Machine, kernel: &Kernel, object: &ObjectName, reason: &str) {
    machine.warnings.add(format!(
        "{object} for {} is not signed: {reason}; {}",
        kernel.release,
        consequence(machine, kernel)
    ));
}

/// What a kernel does with objects that are not signed.
pub(crate) fn consequence(machine: &Machine, kernel: &Kernel) -> &'static str {
    let config = machine.kernel_config(kernel);
    if config.is_some_and(|config| config.is_enabled("CONFIG_MODULE_SIG_FORCE")) {
        return "this kernel loads no module that is not signed";
    }
    match mok::secure_boot(&machine.trees) {
        Some(true) => "Secure Boot is on, so the kernel will refuse to load them",
        Some(false) | None => {
            "without Secure Boot the kernel loads them all the same, with it it would refuse"
        }
    }
}
