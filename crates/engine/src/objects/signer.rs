//! Signs a kernel object with a key, and removes a signature.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::names::KernelRelease;
use crate::os::digest::Digest;
use crate::os::process::{Environment, Program, Tools};

/// No object takes so long; a token that waits for its PIN must not stop a transaction.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// What the signature of an object ends with, and so the object.
const MAGIC: &[u8] = b"~Module signature appended~\n";

/// The kernel's `struct module_signature`, which stands before the magic.
const TRAILER: usize = 12;

/// The signer of each kernel's objects, decided once per run.
#[derive(Debug, Default)]
pub(crate) struct Signers(Mutex<BTreeMap<KernelRelease, Arc<SigningDecision>>>);

impl Signers {
    /// Returns what was decided for a kernel, or what `decide` says now. Other callers wait
    /// meanwhile: two builds must not make two keys.
    pub(crate) fn get_or_decide(
        &self,
        kernel: &KernelRelease,
        decide: impl FnOnce() -> SigningDecision,
    ) -> Arc<SigningDecision> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(kernel.clone()).or_insert_with(|| Arc::new(decide())))
    }

    /// Returns what was decided for a kernel; `None` if nothing was yet.
    pub(crate) fn known(&self, kernel: &KernelRelease) -> Option<Arc<SigningDecision>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(kernel).cloned()
    }
}

/// Whether the objects for a kernel are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SigningDecision {
    /// They are not, for this reason: the kernel cannot check, or it is switched off.
    Off(&'static str),
    /// They should be, but cannot.
    Obstacle(String),
    /// They are.
    With(Signer),
}

impl SigningDecision {
    /// Returns the signer, if objects are signed.
    pub(crate) fn signer(&self) -> Option<&Signer> {
        match self {
            Self::With(signer) => Some(signer),
            Self::Obstacle(_) | Self::Off(_) => None,
        }
    }
}

/// All that it takes to sign an object for one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signer {
    pub(crate) program: PathBuf,
    pub(crate) hash: String,
    pub(crate) keys: Keys,
}

/// A key and its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The file of the private key (PEM), or a `pkcs11:` URI, as sign-file takes it.
    pub(crate) key: String,
    /// The file of the certificate (X.509, DER).
    pub(crate) certificate: PathBuf,
    /// Ubuntu's own tool makes and enrols these.
    pub(crate) of_shim: bool,
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
