//! Decides whether to sign the objects for a kernel, and with which key (dkms-behaviour 6).

use std::path::{Path, PathBuf};

use super::consequence;
use super::keys::{choose_keys, create_keys, find_pin, have_keys};
use crate::failure::Failure;
use crate::machine::{Framework, Kernel, Machine};
use crate::objects::{Signer, SigningDecision};
use crate::os::digest::Digest;
use crate::os::process::is_program;
use crate::os::symlinks;
use crate::other_distributions::sign_file_elsewhere;

/// Returns the signer of the objects for `kernel`, or `None` if these objects are not signed.
///
/// Creates the default key and certificate if both are missing, except in a trial run. Warns if
/// objects should be signed but cannot be.
pub(crate) fn signer(machine: &Machine, kernel: &Kernel) -> Option<Signer> {
    let decision = machine.signers.get_or_decide(&kernel.release, || {
        let decision = decide(machine, kernel);
        if let SigningDecision::Obstacle(why) = &decision {
            let hint = why.hint.as_ref().map_or_else(String::new, |hint| format!("\n  {hint}"));
            machine.warnings.add(format!(
                "modules for {}: not signed: {}; {}{hint}",
                kernel.release,
                why.message,
                consequence(machine, kernel)
            ));
        }
        decision
    });
    decision.signer().cloned()
}

/// Returns the digest of the certificate with which objects for `kernel` are signed. Returns `None`
/// if objects are not signed or the certificate does not exist.
///
/// Unlike [`signer`], never creates a key.
pub(crate) fn certificate(machine: &Machine, kernel: &Kernel) -> Option<Digest> {
    match machine.signers.known(&kernel.release) {
        Some(decision) => decision.signer()?.certificate(),
        None => choose_signer(machine, kernel).signer()?.certificate(),
    }
}

/// Returns the path of the certificate with which objects for `kernel` are signed. The file need
/// not exist.
pub(crate) fn certificate_file(machine: &Machine, kernel: &Kernel) -> PathBuf {
    choose_keys(machine, kernel, &machine.framework(Some(&kernel.release))).certificate
}

/// Returns true if objects for `kernel` are not signed only because this is a trial run, which does
/// not create the missing key.
pub(crate) fn awaits_key(machine: &Machine, kernel: &Kernel) -> bool {
    machine.signers.known(&kernel.release).as_deref() == Some(&SigningDecision::AwaitsKey)
}

/// Decides whether to sign objects for `kernel`, under the same conditions as dkms (dkms-behaviour
/// 6). If the decision is to sign them, the key and the certificate both exist, or both are missing
/// and can be created.
fn choose_signer(machine: &Machine, kernel: &Kernel) -> SigningDecision {
    let config = machine.kernel_config(kernel);
    let Some(config) = config else {
        return SigningDecision::Off("kernel configuration not found");
    };
    let hash = config.value("CONFIG_MODULE_SIG_HASH").filter(|hash| !hash.is_empty());
    let Some(hash) = hash else { return SigningDecision::Off("CONFIG_MODULE_SIG_HASH is not set") };
    let framework = machine.framework(Some(&kernel.release));
    if let Some(file) = &framework.unread {
        return SigningDecision::Obstacle(unread(file));
    }
    match framework.try_sign_modules.as_deref() {
        Some("false") => return SigningDecision::Off("try_sign_modules is false"),
        Some("true") => {}
        _ if machine.is_chroot() => return SigningDecision::Off("running in a chroot"),
        _ => {}
    }
    let program = sign_file(machine, kernel, &framework);
    if !is_program(&program) {
        let program = program.display();
        let message = format!("program not found: {program} (part of the kernel headers)");
        return SigningDecision::Obstacle(Failure::new(1, message));
    }
    let mut keys = choose_keys(machine, kernel, &framework);
    let checked = have_keys(&keys, &framework).and_then(|_| find_pin(&keys, machine));
    match checked {
        Ok(pin) => {
            keys.pin = pin;
            SigningDecision::With(Signer { program, hash: hash.to_owned(), keys })
        }
        Err(why) => SigningDecision::Obstacle(why),
    }
}

/// Returns the failure for a settings file that cannot be read completely. Modules are then not
/// signed, because the rest of the file may name other keys.
pub(super) fn unread(file: &Path) -> Failure {
    Failure::new(1, format!("cannot read all of {}, which may name other keys", file.display()))
}

fn decide(machine: &Machine, kernel: &Kernel) -> SigningDecision {
    let decision = choose_signer(machine, kernel);
    if let SigningDecision::Off(why) = decision {
        log::info!("modules for {}: not signed: {why}", kernel.release);
    }
    let SigningDecision::With(signer) = &decision else { return decision };
    let keys = &signer.keys;
    // `choose_signer` has checked that the key and the certificate both exist or are both missing.
    let missing = !keys.certificate.exists();
    if missing && machine.trial.is_some() {
        return SigningDecision::AwaitsKey;
    }
    match if missing { create_keys(keys, machine) } else { Ok(()) } {
        Ok(()) => decision,
        Err(why) => SigningDecision::Obstacle(why),
    }
}

/// Returns the path of the program that signs objects for `kernel`. The default depends on the
/// distribution.
fn sign_file(machine: &Machine, kernel: &Kernel, framework: &Framework) -> PathBuf {
    if let Some(file) = &framework.sign_file {
        return machine.trees.inside(file);
    }
    // As in dkms, --kernelsourcedir has no effect here.
    let usual = || {
        let build = kernel.dir.join("build");
        symlinks::resolve(&machine.trees.root, &build).unwrap_or(build).join("scripts/sign-file")
    };
    sign_file_elsewhere(machine, &kernel.release)
        .filter(|file| file.is_file())
        .unwrap_or_else(usual)
}
