//! Signs kernel objects and removes their signatures.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::failure::Failure;
use crate::names::KernelRelease;
use crate::os::digest::Digest;
use crate::os::durable::UNFINISHED;
use crate::os::pin::{Pin, redacted};
use crate::os::process::{Environment, Program, Tools};
use crate::os::shared::lock;

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
        let mut known = lock(&self.0);
        Arc::clone(known.entry(kernel.clone()).or_insert_with(|| Arc::new(decide())))
    }

    /// Returns the decision for `kernel`, or `None` if it has not been made yet.
    pub(crate) fn known(&self, kernel: &KernelRelease) -> Option<Arc<SigningDecision>> {
        lock(&self.0).get(kernel).cloned()
    }
}

/// The decision whether and how to sign the objects for a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SigningDecision {
    /// Objects are not signed, because the kernel does not check signatures or signing is disabled.
    /// Contains the reason.
    Off(&'static str),
    /// Objects should be signed but cannot be. Contains the reason.
    Obstacle(Failure),
    /// Objects will be signed once the default key exists. A trial run does not create the key.
    AwaitsKey,
    /// Objects are signed with this program and key.
    With(Signer),
}

impl SigningDecision {
    /// Returns the signer, or `None` if objects are not signed.
    pub(crate) fn signer(&self) -> Option<&Signer> {
        match self {
            Self::With(signer) => Some(signer),
            Self::Obstacle(_) | Self::AwaitsKey | Self::Off(_) => None,
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
    /// The path of the private key (PEM), or a `pkcs11:` URI without a PIN.
    pub(crate) key: String,
    /// The PIN of the token or the passphrase of the private key; `None` if it is not known.
    pub(crate) pin: Option<Pin>,
    /// The path of the certificate (X.509, DER).
    pub(crate) certificate: PathBuf,
    pub(crate) origin: KeyOrigin,
}

/// The origin of the paths of a key and its certificate. It determines whether the files may be
/// created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyOrigin {
    /// The settings name at least one of the files, so neither is ever created.
    Named,
    /// The default pair in `/var/lib/dkms`.
    Default,
    /// The pair that Ubuntu's own tool creates and enrols.
    Shim,
}

impl Keys {
    /// Returns true if the private key is in a hardware token.
    pub(crate) fn is_in_token(&self) -> bool {
        self.key.starts_with("pkcs11:")
    }

    /// Returns the argument that names the private key to sign-file.
    ///
    /// OpenSSL's PKCS #11 provider does not read `KBUILD_SIGN_PIN`, and other users can see
    /// arguments. For a key in a token, `pin` is therefore written to a file in the private
    /// directory `dir`, and the URI names that file.
    fn argument(&self, pin: Option<&Pin>, dir: &Path) -> io::Result<String> {
        let Some(pin) = pin.filter(|_| self.is_in_token() && !self.key.contains("pin-source="))
        else {
            return Ok(self.key.clone());
        };
        let file = dir.join("pin");
        fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)?
            .write_all(pin.as_os_str().as_bytes())?;
        let separator = if self.key.contains('?') { '&' } else { '?' };
        Ok(format!("{}{separator}pin-source=file:{}", self.key, encoded(&file)))
    }
}

/// Returns `path` with percent-encoding for all bytes that could be special in a URI.
fn encoded(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let encode = |&byte: &u8| {
        if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    path.as_os_str().as_bytes().iter().map(encode).collect()
}

impl Signer {
    /// Signs an uncompressed object. If the program fails or adds no signature, returns an error
    /// message and leaves the object unchanged.
    pub(crate) fn sign(
        &self,
        tools: &Tools,
        env: &Environment,
        object: &Path,
    ) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        let (Some(dir), Some(name)) = (object.parent(), object.file_name()) else {
            return Err(format!("{}: invalid path", object.display()));
        };
        // A failed sign-file can leave partial output in the object or beside it. Therefore,
        // sign-file works on a copy.
        let dir = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(dir).map_err(text)?;
        let copy = dir.path().join(name);
        fs::copy(object, &copy).map_err(text)?;
        let pin = self.keys.pin.as_ref().or_else(|| env.pin());
        let key = self.keys.argument(pin, dir.path()).map_err(text)?;
        let env = pin.map_or_else(|| env.clone(), |pin| env.clone().with_pin(pin));
        let ended = Program::new(&self.program, &env)
            .args([&self.hash, &key])
            .arg(&self.keys.certificate)
            .arg(&copy)
            .deadline(DEADLINE)
            .confined(tools)
            .run()
            .map_err(|error| error.to_string())?;
        if !ended.success() {
            return Err(match ended.complaint() {
                said if said.is_empty() => format!("{}: {}", self.program.display(), ended.how),
                said => self.shown(&said, &key, pin),
            });
        }
        match signed_length(&fs::read(&copy).map_err(text)?) {
            Some(_) => fs::rename(&copy, object).map_err(text),
            None => Err(format!("{} succeeded but added no signature", self.program.display())),
        }
    }

    /// Returns the complaint of a failed sign-file in one line, or a plain message if the passphrase
    /// is wrong. Replaces `key`, the argument that was passed to sign-file, with the configured key,
    /// and removes the PIN.
    fn shown(&self, complaint: &str, key: &str, pin: Option<&Pin>) -> String {
        // OpenSSL buries the reason in several lines.
        if complaint.contains("bad decrypt") {
            return format!("{}: wrong passphrase", redacted(&self.keys.key));
        }
        let text = redacted(&complaint.replace(key, &self.keys.key)).replace('\n', "; ");
        match pin.and_then(|pin| pin.as_os_str().to_str()).filter(|pin| !pin.is_empty()) {
            Some(pin) => text.replace(pin, "…"),
            None => text,
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
pub(super) fn signed_length(object: &[u8]) -> Option<u64> {
    let rest = object.strip_suffix(MAGIC)?;
    let (_, length) = rest.split_last_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    u64::try_from(rest.len().checked_sub(TRAILER)?.checked_sub(length)?).ok()
}

/// Returns the signature of an uncompressed object: a CMS message in DER. Returns `None` if the
/// object is not signed.
pub(crate) fn signature_of(object: &[u8]) -> Option<&[u8]> {
    let start = usize::try_from(signed_length(object)?).ok()?;
    object.get(start..object.len().checked_sub(MAGIC.len() + TRAILER)?)
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

    fn signer(keys: Keys) -> Signer {
        Signer { program: "/usr/bin/sign".into(), hash: "sha256".into(), keys }
    }

    fn token(uri: &str) -> Keys {
        Keys {
            key: uri.into(),
            pin: Some(Pin::new("12 34")),
            certificate: "/c".into(),
            origin: KeyOrigin::Named,
        }
    }

    #[test]
    fn pin_is_passed_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("a+b");
        fs::create_dir(&at).unwrap();
        let keys = token("pkcs11:object=a");
        let argument = keys.argument(keys.pin.as_ref(), &at).unwrap();
        let end = format!("{}/a%2Bb/pin", dir.path().display());
        assert_eq!(argument, format!("pkcs11:object=a?pin-source=file:{end}"));
        assert_eq!(fs::read_to_string(at.join("pin")).unwrap(), "12 34");
        for uri in ["pkcs11:object=a?pin-source=file:/own", "/k/mok.key"] {
            let keys = token(uri);
            assert_eq!(keys.argument(keys.pin.as_ref(), &at).unwrap(), uri);
        }
    }

    #[test]
    fn complaints_do_not_contain_the_pin() {
        let signer = signer(token("pkcs11:object=a"));
        let said = "URI?x: login with 12 34 failed\npkcs11:b?pin-value=5678";
        let shown = signer.shown(said, "URI?x", signer.keys.pin.as_ref());
        assert_eq!(shown, "pkcs11:object=a: login with … failed; pkcs11:b?pin-value=…");
    }

    #[test]
    fn a_wrong_passphrase_is_named() {
        let signer = signer(Keys { key: "/k/mok.key".into(), ..token("") });
        let said = "At main.c:140:\n- SSL error:1C800064:Provider routines::bad decrypt: \
                    ../providers/implementations/ciphers/ciphercommon_block.c:107\n\
                    - SSL error:04800065:PEM routines::bad decrypt: ../crypto/pem/pem_lib.c:498\n\
                    sign-file: /k/mok.key";
        let shown = signer.shown(said, "/k/mok.key", None);
        assert_eq!(shown, "/k/mok.key: wrong passphrase");
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
