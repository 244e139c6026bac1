//! Chooses the private key and the certificate that sign objects, and creates them if they are
//! missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::machine::{Framework, Kernel, Machine};
use crate::objects::{DEADLINE, Keys};
use crate::os::durable::{self, FileError};
use crate::os::process::Program;
use crate::other_distributions::{SHIM_KEYS, make_shim_keys, portage_keys};

/// The default paths of the private key and the certificate. As in dkms, the setting `dkms_tree`
/// does not change them.
const DEFAULT_KEYS: [&str; 2] = ["/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"];

/// Returns the configured private key and certificate, or the distribution's default ones
/// (dkms-behaviour 6). The files need not exist.
pub(super) fn choose_keys(machine: &Machine, kernel: &Kernel, framework: &Framework) -> Keys {
    let of_shim = framework.mok_signing_key.is_none() && machine.is_any(&["ubuntu"]);
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let key = framework.mok_signing_key.as_ref().map(text);
    let certificate = framework.mok_certificate.as_ref().map(text);
    let [mut default_key, mut default_certificate] =
        if of_shim { SHIM_KEYS } else { DEFAULT_KEYS }.map(str::to_owned);
    if key.is_none() && machine.is_any(&["gentoo"]) {
        let (gentoo_key, gentoo_certificate) = portage_keys(machine, kernel);
        default_key = gentoo_key.unwrap_or(default_key);
        default_certificate = gentoo_certificate.unwrap_or(default_certificate);
    }
    let key = key.unwrap_or(default_key);
    let inside = |path: &str| machine.trees.inside(Path::new(path));
    Keys {
        certificate: inside(&certificate.unwrap_or(default_certificate)),
        key: if is_token(&key) { key } else { text(&inside(&key)) },
        of_shim,
    }
}

/// Creates the private key if it is missing, and the certificate if either of them is missing.
/// Returns true if it created a file.
///
/// # Errors
/// A message if a file is missing and cannot be created.
pub(super) fn provide_keys(keys: &Keys, machine: &Machine) -> Result<bool, String> {
    let token = is_token(&keys.key);
    let (has_key, has_certificate) =
        (token || Path::new(&keys.key).is_file(), keys.certificate.is_file());
    match (has_key, has_certificate) {
        (true, true) => Ok(false),
        (true, false) if token => Err(format!(
            "certificate not found: {} (for the key {})",
            keys.certificate.display(),
            keys.key
        )),
        _ if keys.of_shim => make_shim_keys(machine).map(|()| true),
        _ => generate(keys, machine, has_key).map(|()| true).map_err(|error| {
            format!(
                "cannot create the key {} and the certificate {}: {error}",
                keys.key,
                keys.certificate.display()
            )
        }),
    }
}

/// Creates the certificate. If `has_key` is false, also creates the private key.
///
/// dkms would replace an existing key. This function keeps it, since its certificate may be
/// enrolled.
fn generate(keys: &Keys, machine: &Machine, has_key: bool) -> Result<(), String> {
    let text = |error: FileError| error.to_string();
    let (key, certificate) = (Path::new(&keys.key), keys.certificate.as_path());
    let dir = certificate.parent().ok_or("not a file name")?;
    let [key_dir, certificate_dir] = [key.parent().unwrap_or(dir), dir].map(|dir| {
        tempfile::Builder::new()
            .prefix(durable::UNFINISHED)
            .tempdir_in(dir)
            .map_err(|error| format!("cannot create files in {}: {error}", dir.display()))
    });
    let new_key = key_dir?;
    let new_certificate = certificate_dir?;
    let (key_file, certificate_file) =
        (new_key.path().join("key"), new_certificate.path().join("certificate"));
    let mut program = Program::new(&machine.tools.openssl, &machine.env)
        .args(["req", "-new", "-x509", "-sha256", "-days", "36500", "-outform", "DER"])
        .args(["-subj", "/CN=DKMS module signing key"])
        .args(["-addext", "extendedKeyUsage=codeSigning"])
        .arg("-out")
        .arg(&certificate_file);
    program = if has_key {
        program.arg("-key").arg(key)
    } else {
        program.args(["-newkey", "rsa:2048", "-nodes", "-keyout"]).arg(&key_file)
    };
    let ended = program.deadline(DEADLINE).run().map_err(|error| error.to_string())?;
    if !ended.success() {
        return Err(ended.complaint().replace('\n', "; "));
    }
    if !has_key {
        // Other users could never read the key, since its directory is private.
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&key_file, mode)
            .map_err(FileError::when("set the mode of", &key_file))
            .map_err(text)?;
        fs::rename(&key_file, key).map_err(FileError::when("write", key)).map_err(text)?;
    }
    fs::rename(&certificate_file, certificate)
        .map_err(FileError::when("write", certificate))
        .map_err(text)?;
    durable::sync_dir(dir).map_err(text)
}

/// Returns true if `key` is in a hardware token (`pkcs11:`), in which no key can be created.
fn is_token(key: &str) -> bool {
    key.starts_with("pkcs11:")
}
