//! Decides who signs the objects for a kernel (dkms-behaviour 6).

use std::path::PathBuf;

use super::chroot::is_chroot;
use super::consequence;
use super::keys::{choose_keys, provide_keys};
use crate::machine::{Framework, Kernel, Machine};
use crate::objects::{Signer, SigningDecision};
use crate::os::digest::Digest;
use crate::os::process::is_program;
use crate::os::symlinks;
use crate::other_distributions::sign_file_elsewhere;

/// Returns the signer for `kernel`; makes a key if none is there. Warns once about what is in the
/// way.
pub(crate) fn signer(machine: &Machine, kernel: &Kernel) -> Option<Signer> {
    let decision = machine.signers.get_or_decide(&kernel.release, || {
        let decision = decide(machine, kernel);
        if let SigningDecision::Obstacle(what) = &decision {
            machine.warnings.add(format!(
                "modules for {} are not signed: {what}; {}",
                kernel.release,
                consequence(machine, kernel)
            ));
        }
        decision
    });
    decision.signer().cloned()
}

/// Returns the digest of the certificate that objects for `kernel` are signed for, if they are and
/// the certificate exists. Changes nothing.
pub(crate) fn certificate(machine: &Machine, kernel: &Kernel) -> Option<Digest> {
    match machine.signers.known(&kernel.release) {
        Some(decision) => decision.signer()?.certificate(),
        None => choose_signer(machine, kernel).signer()?.certificate(),
    }
}

/// Goes through the conditions in dkms's order (dkms-behaviour 6), keys left aside.
fn choose_signer(machine: &Machine, kernel: &Kernel) -> SigningDecision {
    let config = machine.kernel_config(kernel);
    let Some(config) = config else {
        return SigningDecision::Off("the kernel has no configuration");
    };
    let hash = config.value("CONFIG_MODULE_SIG_HASH").filter(|hash| !hash.is_empty());
    let Some(hash) = hash else { return SigningDecision::Off("the kernel knows no signatures") };
    let framework = machine.framework(Some(&kernel.release));
    match framework.try_sign_modules.as_deref() {
        Some("false") => return SigningDecision::Off("try_sign_modules is false"),
        Some("true") => {}
        _ if is_chroot(machine) => return SigningDecision::Off("this is a chroot"),
        _ => {}
    }
    let program = sign_file(machine, kernel, &framework);
    if !is_program(&program) {
        return SigningDecision::Obstacle(format!(
            "there is no program {}: it is part of the kernel's headers",
            program.display()
        ));
    }
    let keys = choose_keys(machine, kernel, &framework);
    SigningDecision::With(Signer { program, hash: hash.to_owned(), keys })
}

fn decide(machine: &Machine, kernel: &Kernel) -> SigningDecision {
    let decision = choose_signer(machine, kernel);
    if let SigningDecision::Off(why) = decision {
        log::info!("modules for {} are not signed: {why}", kernel.release);
    }
    match decision {
        SigningDecision::With(signer) => match provide_keys(&signer.keys, machine) {
            Ok(_) => SigningDecision::With(signer),
            Err(what) => SigningDecision::Obstacle(what),
        },
        other => other,
    }
}

/// The kernel's own program to sign with, where the distribution keeps it.
fn sign_file(machine: &Machine, kernel: &Kernel, framework: &Framework) -> PathBuf {
    if let Some(file) = &framework.sign_file {
        return machine.trees.inside(file);
    }
    // Never that of --kernelsourcedir: as with dkms, it is the machine's own that signs.
    let usual = || {
        let build = kernel.dir.join("build");
        symlinks::resolve(&machine.trees.root, &build).unwrap_or(build).join("scripts/sign-file")
    };
    sign_file_elsewhere(machine, &kernel.release)
        .filter(|file| file.is_file())
        .unwrap_or_else(usual)
}
