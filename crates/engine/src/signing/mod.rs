//! Chooses the key that signs the objects for a kernel, and creates that key if it is missing.

mod certificate;
mod decide;
mod keys;
mod mok;

pub(crate) use certificate::{Certificate, Trust, trust_in};
pub(crate) use decide::{awaits_key, certificate, certificate_file, signer};
pub(crate) use mok::secure_boot;
pub use mok::{Mok, generate_mok};

use crate::machine::{Kernel, Machine};
use crate::objects::ObjectName;

/// Warns that `object` could not be signed because of `reason`.
pub(crate) fn warn(machine: &Machine, kernel: &Kernel, object: &ObjectName, reason: &str) {
    machine.warnings.add(format!(
        "{object} for {}: not signed: {reason}; {}",
        kernel.release,
        consequence(machine, kernel)
    ));
}

/// Returns a clause, for use in messages, that says how `kernel` treats unsigned modules.
pub(crate) fn consequence(machine: &Machine, kernel: &Kernel) -> &'static str {
    let config = machine.kernel_config(kernel);
    if config.is_some_and(|config| config.is_enabled("CONFIG_MODULE_SIG_FORCE")) {
        return "this kernel loads only signed modules";
    }
    match secure_boot(&machine.trees) {
        Some(true) => "Secure Boot is enabled, so the kernel will not load unsigned modules",
        Some(false) | None => "the kernel loads unsigned modules unless Secure Boot is enabled",
    }
}
