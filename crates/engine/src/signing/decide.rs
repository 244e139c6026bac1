//! Decides who signs the objects for a kernel (dkms-behaviour 6).

use std::path::{Path, PathBuf};

use super::chroot::is_chroot;
use super::consequence;
use super::keys::{choose_keys, provide_keys};
use crate::machine::{Framework, Kernel, KernelConfig, Machine, distribution};
use crate::objects::{Signer, SigningDecision};
use crate::os::digest::Digest;
use crate::os::process::is_program;
use crate::os::symlinks;

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
    let config = kernel.config_file().and_then(|path| KernelConfig::read(&path).ok());
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
    let distribution = distribution::id(&machine.trees).unwrap_or_default();
    let program = sign_file(machine, kernel, &framework, &distribution);
    if !is_program(&program) {
        return SigningDecision::Obstacle(format!(
            "there is no program {}: it is part of the kernel's headers",
            program.display()
        ));
    }
    let keys = choose_keys(machine, kernel, &framework, &distribution);
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
fn sign_file(
    machine: &Machine,
    kernel: &Kernel,
    framework: &Framework,
    distribution: &str,
) -> PathBuf {
    let inside = |path: &str| machine.trees.inside(Path::new(path));
    if let Some(file) = &framework.sign_file {
        return machine.trees.inside(file);
    }
    let release = kernel.release.as_str();
    let first = if distribution.starts_with("debian") {
        let series = release.rsplit_once('.').map_or(release, |(series, _)| series);
        Some(inside(&format!("/usr/lib/linux-kbuild-{series}/scripts/sign-file")))
    } else if distribution.starts_with("ubuntu") {
        // The PATH says nothing of another root.
        let here = machine.trees.root == Path::new("/");
        let own =
            if here { machine.env.find("kmodsign") } else { Some(inside("/usr/bin/kmodsign")) };
        let headers = inside(&format!("/usr/src/linux-headers-{release}/scripts/sign-file"));
        Some(own.filter(|file| is_program(file)).unwrap_or(headers))
    } else if distribution.starts_with("gentoo") {
        Some(inside(&format!("/usr/src/linux-{release}/scripts/sign-file")))
    } else {
        None
    };
    // Never that of --kernelsourcedir: as with dkms, it is the machine's own that signs.
    let usual = || {
        let build = kernel.dir.join("build");
        symlinks::resolve(&machine.trees.root, &build).unwrap_or(build).join("scripts/sign-file")
    };
    first.filter(|file| file.is_file()).unwrap_or_else(usual)
}
