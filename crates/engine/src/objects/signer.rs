//! Signs kernel objects and removes their signatures.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::names::KernelRelease;
use crate::os::digest::Digest;
use crate::os::process::{Environment, Program, Tools};

/// The time limit for creating a key or signing one object.
///
/// A token that waits for its PIN must not block a transaction.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// The bytes at the end of every signed object.
const MAGIC: &[u8] = b"~Module signature appended~\n";

/// The size in bytes of the kernel's `struct module_signature`, which precedes [`MAGIC`].
const TRAILER: usize = 12;

/// The signing decision for each kernel, made once per run.
#[derive(Debug, Default)]
pub(crate) struct Signers(Mutex<BTreeMap<KernelRelease, Arc<SigningDecision>>>);

impl Signers {
    /// Returns the decision for `kernel`. If there is none yet, calls `decide` to make it.
    ///
    /// Other callers wait until `decide` has returned, so that two builds do not create two keys.
    pub(crate) fn get_or_decide(
        &self,
        kernel: &KernelRelease,
        decide: impl FnOnce() -> SigningDecision,
    ) -> Arc<SigningDecision> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(kernel.clone()).or_insert_with(|| Arc::new(decide())))
    }

    /// Returns the decision for `kernel`, or `None` if it has not been made yet.
    pub(crate) fn known(&self, kernel: &KernelRelease) -> Option<Arc<SigningDecision>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(kernel).cloned()
    }
}

/// The decision whether and how to sign the objects for a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SigningDecision {
    /// Objects are not signed, because the kernel does not check signatures or signing is disabled.
    /// Contains the reason.
    Off(&'static str),
    /// Objects should be signed but cannot be. Contains the reason.
    Obstacle(String),
    /// Objects are signed with this program and key.
    With(Signer),
}

impl SigningDecision {
    /// Returns the signer, or `None` if objects are not signed.
    pub(crate) fn signer(&self) -> Option<&Signer> {
        match self {
            Self::With(signer) => Some(signer),
            Self::Obstacle(_) | Self::Off(_) => None,
        }
    }
}

/// The program and keys that sign objects for one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signer {
    pub(crate) program: PathBuf,
    pub(crate) hash: String,
    pub(crate) keys: Keys,
}

/// A private key and its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The path of the private key (PEM) or a `pkcs11:` URI, as accepted by sign-file.
    pub(crate) key: String,
    /// The path of the certificate (X.509, DER).
    pub(crate) certificate: PathBuf,
    /// Whether Ubuntu's own tool creates and enrols the key and the certificate.
    pub(crate) of_shim: bool,
}

impl Signer {
    /// Signs an uncompressed object in place. Returns an error message if the program fails or adds
    /// no signature.
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
            None => Err(format!("{} succeeded but added no signature", self.program.display())),
        }
    }

    /// Returns the digest of the certificate file, or `None` if the file cannot be read.
    ///
    /// Records contain the digest to identify the key.
    pub(crate) fn certificate(&self) -> Option<Digest> {
        Digest::of_file(&self.keys.certificate).ok()
    }
}

/// Removes the signature from an uncompressed object, if it has one.
pub(crate) fn remove_signature(object: &Path) -> std::io::Result<()> {
    match signed_length(&fs::read(object)?) {
        Some(length) => fs::File::options().write(true).open(object)?.set_len(length),
        None => Ok(()),
    }
}

/// Returns the length of a signed object without its signature, or `None` if the object is not
/// signed.
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
    fn removes_a_signature() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), signed(b"an object", b"a signature")).unwrap();
        for _ in 0..2 {
            remove_signature(file.path()).unwrap();
            assert_eq!(fs::read(file.path()).unwrap(), b"an object");
        }
    }

    proptest! {
        #[test]
        fn never_panics_on_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(signed_length(&bytes), None);
            bytes.extend(MAGIC);
            let _ = signed_length(&bytes);
        }
    }
}
