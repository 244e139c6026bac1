//! The private key and the certificate that objects are signed with, made if they are missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::machine::{Framework, Kernel, Machine};
use crate::objects::{DEADLINE, Keys};
use crate::os::durable::{self, FileError};
use crate::os::process::Program;
use crate::other_distributions::{SHIM_KEYS, make_shim_keys, portage_keys};

/// Where keys are. dkms does not move them along with its tree.
const USUAL: [&str; 2] = ["/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"];

/// Which keys the settings and the distribution name (dkms-behaviour 6).
pub(super) fn choose_keys(machine: &Machine, kernel: &Kernel, framework: &Framework) -> Keys {
    let of_shim = framework.mok_signing_key.is_none() && machine.is_any(&["ubuntu"]);
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let key = framework.mok_signing_key.as_ref().map(text);
    let certificate = framework.mok_certificate.as_ref().map(text);
    let [mut usual_key, mut usual_certificate] =
        if of_shim { SHIM_KEYS } else { USUAL }.map(str::to_owned);
    if key.is_none() && machine.is_any(&["gentoo"]) {
        let (gentoo_key, gentoo_certificate) = portage_keys(machine, kernel);
        usual_key = gentoo_key.unwrap_or(usual_key);
        usual_certificate = gentoo_certificate.unwrap_or(usual_certificate);
    }
    let key = key.unwrap_or(usual_key);
    let inside = |path: &str| machine.trees.inside(Path::new(path));
    Keys {
        certificate: inside(&certificate.unwrap_or(usual_certificate)),
        key: if is_token(&key) { key } else { text(&inside(&key)) },
        of_shim,
    }
}

/// Makes the key and the certificate if they are missing; returns true if it made any.
pub(super) fn provide_keys(keys: &Keys, machine: &Machine) -> Result<bool, String> {
    let token = is_token(&keys.key);
    let (has_key, has_certificate) =
        (token || Path::new(&keys.key).is_file(), keys.certificate.is_file());
    match (has_key, has_certificate) {
        (true, true) => Ok(false),
        (true, false) if token => Err(format!(
            "the certificate of the key {} is missing: {}",
            keys.key,
            keys.certificate.display()
        )),
        _ if keys.of_shim => make_shim_keys(machine).map(|()| true),
        _ => generate(keys, machine, has_key).map(|()| true).map_err(|error| {
            format!(
                "cannot make the key {} and its certificate {}: {error}",
                keys.key,
                keys.certificate.display()
            )
        }),
    }
}

/// Makes what is missing. A key that is there is kept (dkms replaces it): it may be enrolled.
fn generate(keys: &Keys, machine: &Machine, has_key: bool) -> Result<(), String> {
    let text = |error: FileError| error.to_string();
    let (key, certificate) = (Path::new(&keys.key), keys.certificate.as_path());
    let dir = certificate.parent().ok_or("it is no file")?;
    let [key_dir, certificate_dir] = [key.parent().unwrap_or(dir), dir].map(|dir| {
        tempfile::Builder::new()
            .prefix(durable::UNFINISHED)
            .tempdir_in(dir)
            .map_err(|error| format!("cannot make files in {}: {error}", dir.display()))
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
        // It was never readable for others: its directory is ours alone.
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

/// Returns true if a key lies in a token, which makes none for us.
fn is_token(key: &str) -> bool {
    key.starts_with("pkcs11:")
}
