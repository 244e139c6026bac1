//! Signing kernel objects with the machine owner's key, for kernels that check signatures.

mod chroot;
mod keys;
mod mok;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use mok::{Mok, generate_mok};

use crate::digest::Digest;
use crate::distribution;
use crate::kernels::{Kernel, KernelConfig};
use crate::names::KernelRelease;
use crate::object::ObjectName;
use crate::run::{Environment, Program, Tools, is_program};
use crate::settings::Framework;
use crate::site::Site;
use keys::Keys;

/// No object takes so long; a token that waits for its PIN must not stop a transaction.
const DEADLINE: Duration = Duration::from_secs(120);

/// What the signature of an object ends with, and so the object.
const MAGIC: &[u8] = b"~Module signature appended~\n";

/// The kernel's `struct module_signature`, which stands before the magic.
const TRAILER: usize = 12;

/// Who signs, found out once for each kernel and run.
#[derive(Debug, Default)]
pub struct Signing(Mutex<BTreeMap<KernelRelease, Arc<Verdict>>>);

/// Whether the objects for a kernel are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They are not, and nobody wants it: the kernel cannot check, or it is switched off.
    Off(&'static str),
    /// They should be, but cannot.
    Obstacle(String),
    /// They are.
    With(Signer),
}

/// All that it takes to sign an object for one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signer {
    program: PathBuf,
    hash: String,
    keys: Keys,
}

impl Signing {
    /// Who signs for `kernel`; makes a key if none is there. What is in the way is told once.
    pub(crate) fn signer(&self, site: &Site, kernel: &Kernel) -> Option<Signer> {
        // Held all the while: two builds must not make two keys.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = known.entry(kernel.release.clone()).or_insert_with(|| {
            let verdict = verdict(site, kernel).and_provide(site);
            if let Verdict::Obstacle(what) = &verdict {
                site.warnings.add(format!(
                    "modules for {} are not signed: {what}; {}",
                    kernel.release,
                    consequence(site, kernel)
                ));
            }
            Arc::new(verdict)
        });
        match verdict.as_ref() {
            Verdict::With(signer) => Some(signer.clone()),
            Verdict::Obstacle(_) | Verdict::Off(_) => None,
        }
    }

    /// The certificate that objects for `kernel` are signed for, if they are and it is there
    /// already. Changes nothing.
    pub(crate) fn certificate(&self, site: &Site, kernel: &Kernel) -> Option<Digest> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = known.get(&kernel.release).map(|known| known.as_ref().clone());
        drop(known);
        match verdict.unwrap_or_else(|| verdict_of(site, kernel)) {
            Verdict::With(signer) => signer.certificate(),
            Verdict::Obstacle(_) | Verdict::Off(_) => None,
        }
    }
}

impl Verdict {
    /// Sees to it that the keys are there.
    fn and_provide(self, site: &Site) -> Self {
        match self {
            Self::With(signer) => match signer.keys.provide(site) {
                Ok(_) => Self::With(signer),
                Err(what) => Self::Obstacle(what),
            },
            other => other,
        }
    }
}

impl Signer {
    /// Signs an uncompressed object in place. If that fails, it is as it was.
    pub(crate) fn sign(
        &self,
        tools: &Tools,
        env: &Environment,
        object: &Path,
    ) -> Result<(), String> {
        let ended = Program::new(&self.program, env)
            .args([&self.hash, &self.keys.key])
            .arg(&self.keys.certificate)
            .arg(object)
            .deadline(DEADLINE)
            .confined(tools)
            .run()
            .map_err(|error| error.to_string())?;
        if !ended.success() {
            return Err(match ended.complaint() {
                said if said.is_empty() => format!("{}: {}", self.program.display(), ended.how),
                said => said.replace('\n', "; "),
            });
        }
        match signed_length(&fs::read(object).map_err(|error| error.to_string())?) {
            Some(_) => Ok(()),
            None => Err(format!("{} has not signed it", self.program.display())),
        }
    }

    /// By what objects are known to be signed with this key.
    pub(crate) fn certificate(&self) -> Option<Digest> {
        Digest::of_file(&self.keys.certificate).ok()
    }
}

/// Takes the signature off an uncompressed object, if it has one.
pub(crate) fn remove_signature(object: &Path) -> std::io::Result<()> {
    match signed_length(&fs::read(object)?) {
        Some(length) => fs::File::options().write(true).open(object)?.set_len(length),
        None => Ok(()),
    }
}

/// How much of an object is signed, if it ends with a signature.
fn signed_length(object: &[u8]) -> Option<u64> {
    let rest = object.strip_suffix(MAGIC)?;
    let (_, length) = rest.split_last_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    u64::try_from(rest.len().checked_sub(TRAILER)?.checked_sub(length)?).ok()
}

/// Tells that one object could not be signed.
pub(crate) fn warn(site: &Site, kernel: &Kernel, object: &ObjectName, reason: &str) {
    site.warnings.add(format!(
        "{object} for {} is not signed: {reason}; {}",
        kernel.release,
        consequence(site, kernel)
    ));
}

/// What a kernel does with objects that are not signed.
pub(crate) fn consequence(site: &Site, kernel: &Kernel) -> &'static str {
    let config = kernel.config_file().and_then(|path| KernelConfig::read(&path).ok());
    if config.is_some_and(|config| config.is_enabled("CONFIG_MODULE_SIG_FORCE")) {
        return "this kernel loads no module that is not signed";
    }
    match mok::secure_boot(&site.trees) {
        Some(true) => "Secure Boot is on, so the kernel will refuse to load them",
        Some(false) | None => {
            "without Secure Boot the kernel loads them all the same, with it it would refuse"
        }
    }
}

/// Goes through the conditions in dkms's order (dkms-behaviour 6), keys left aside.
fn verdict_of(site: &Site, kernel: &Kernel) -> Verdict {
    let config = kernel.config_file().and_then(|path| KernelConfig::read(&path).ok());
    let Some(config) = config else { return Verdict::Off("the kernel has no configuration") };
    let hash = config.value("CONFIG_MODULE_SIG_HASH").filter(|hash| !hash.is_empty());
    let Some(hash) = hash else { return Verdict::Off("the kernel knows no signatures") };
    let framework = site.framework(Some(&kernel.release));
    match framework.try_sign_modules.as_deref() {
        Some("false") => return Verdict::Off("try_sign_modules is false"),
        Some("true") => {}
        _ if chroot::is_one(site) => return Verdict::Off("this is a chroot"),
        _ => {}
    }
    let distribution = distribution::id(&site.trees).unwrap_or_default();
    let program = sign_file(site, kernel, &framework, &distribution);
    if !is_program(&program) {
        return Verdict::Obstacle(format!(
            "there is no program {}: it is part of the kernel's headers",
            program.display()
        ));
    }
    let keys = Keys::choose(site, kernel, &framework, &distribution);
    Verdict::With(Signer { program, hash: hash.to_owned(), keys })
}

fn verdict(site: &Site, kernel: &Kernel) -> Verdict {
    let verdict = verdict_of(site, kernel);
    if let Verdict::Off(why) = verdict {
        log::info!("modules for {} are not signed: {why}", kernel.release);
    }
    verdict
}

/// The kernel's own program to sign with, where the distribution keeps it.
fn sign_file(site: &Site, kernel: &Kernel, framework: &Framework, distribution: &str) -> PathBuf {
    let inside = |path: &str| site.trees.inside(Path::new(path));
    if let Some(file) = &framework.sign_file {
        return site.trees.inside(file);
    }
    let release = kernel.release.as_str();
    let first = if distribution.starts_with("debian") {
        let series = release.rsplit_once('.').map_or(release, |(series, _)| series);
        Some(inside(&format!("/usr/lib/linux-kbuild-{series}/scripts/sign-file")))
    } else if distribution.starts_with("ubuntu") {
        // The PATH says nothing of another root.
        let here = site.trees.root == Path::new("/");
        let own = if here { site.env.find("kmodsign") } else { Some(inside("/usr/bin/kmodsign")) };
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
        crate::links::resolve(&site.trees.root, &build).unwrap_or(build).join("scripts/sign-file")
    };
    first.filter(|file| file.is_file()).unwrap_or_else(usual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signed(object: &[u8], signature: &[u8]) -> Vec<u8> {
        let mut all = [object, signature, &[0; 8]].concat();
        all.extend((signature.len() as u32).to_be_bytes());
        all.extend(MAGIC);
        all
    }

    #[test]
    fn takes_a_signature_off() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), signed(b"an object", b"a signature")).unwrap();
        for _ in 0..2 {
            remove_signature(file.path()).unwrap();
            assert_eq!(fs::read(file.path()).unwrap(), b"an object");
        }
    }

    proptest! {
        #[test]
        fn takes_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(signed_length(&bytes), None);
            bytes.extend(MAGIC);
            let _ = signed_length(&bytes);
        }
    }
}
