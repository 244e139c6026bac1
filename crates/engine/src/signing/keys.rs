//! Chooses the private key and the certificate that sign objects, and creates the default pair if
//! both files are missing.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::machine::{Framework, Kernel, Machine};
use crate::objects::{DEADLINE, KeyOrigin, Keys};
use crate::os::durable::{self, FileError};
use crate::os::pin::{Pin, split_pin};
use crate::os::process::Program;
use crate::other_distributions::{SHIM_KEYS, make_shim_keys, portage_keys};

/// The default paths of the private key and the certificate. As in dkms, the setting `dkms_tree`
/// does not change them.
const DEFAULT_KEYS: [&str; 2] = ["/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"];

/// The hint for files that are named by settings.
const SEE_SETTINGS: &str = "see: mok_signing_key in alpm-dkms(7)";

/// Returns the configured private key and certificate, or the distribution's default ones
/// (dkms-behaviour 6). The files need not exist.
pub(super) fn choose_keys(machine: &Machine, kernel: &Kernel, framework: &Framework) -> Keys {
    let of_shim = framework.mok_signing_key.is_none() && machine.is_any(&["ubuntu"]);
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let key = framework.mok_signing_key.as_ref().map(text);
    let certificate = framework.mok_certificate.as_ref().map(text);
    let (usual, created_by) =
        if of_shim { (SHIM_KEYS, KeyOrigin::Shim) } else { (DEFAULT_KEYS, KeyOrigin::Default) };
    let [mut default_key, mut default_certificate] = usual.map(str::to_owned);
    if key.is_none() && machine.is_any(&["gentoo"]) {
        let (gentoo_key, gentoo_certificate) = portage_keys(machine, kernel);
        default_key = gentoo_key.unwrap_or(default_key);
        default_certificate = gentoo_certificate.unwrap_or(default_certificate);
    }
    let (key, pin) = split_pin(&key.unwrap_or(default_key));
    let certificate = certificate.unwrap_or(default_certificate);
    let is_usual = [&key, &certificate].map(Path::new) == usual.map(Path::new);
    let inside = |path: &str| machine.trees.inside(Path::new(path));
    let mut keys = Keys {
        key,
        pin,
        certificate: inside(&certificate),
        origin: if is_usual { created_by } else { KeyOrigin::Named },
    };
    if !keys.is_in_token() {
        keys.key = text(&inside(&keys.key));
    }
    keys
}

/// Returns true if the private key and the certificate exist, and false if both are missing and can
/// be created.
///
/// # Errors
/// [`Failure`] in all other cases. If only one file is missing, no new pair is created, because the
/// existing file may belong to an enrolled certificate. No files are created if errors in the
/// settings could hide the names of other files.
pub(super) fn have_keys(keys: &Keys, framework: &Framework) -> Result<bool, Failure> {
    use FileState::{Missing, Present, Unusable};
    let key = if keys.is_in_token() { Present } else { FileState::of(Path::new(&keys.key)) };
    let (name, certificate) = (&keys.key, keys.certificate.display());
    let (message, kept) = match (key, FileState::of(&keys.certificate)) {
        (Present, Present) => return Ok(true),
        (Unusable(why), _) => (format!("cannot use the key {name}: {why}"), None),
        (_, Unusable(why)) => (format!("cannot use the certificate {certificate}: {why}"), None),
        (Missing, Present) => (
            format!("key not found: {name} (for the certificate {certificate})"),
            Some((certificate.to_string(), name.clone())),
        ),
        (Present, Missing) => (
            format!("certificate not found: {certificate} (for the key {name})"),
            Some((name.clone(), certificate.to_string())),
        ),
        (Missing, Missing) if keys.origin == KeyOrigin::Named => {
            (format!("key and certificate not found: {name}, {certificate}"), None)
        }
        (Missing, Missing) => {
            let Some(file) = &framework.faulty else { return Ok(false) };
            let message = format!(
                "key and certificate not found: {name}, {certificate}; not created because of \
                 errors in {}",
                file.display()
            );
            (message, None)
        }
    };
    Err(match kept.filter(|_| keys.origin != KeyOrigin::Named) {
        Some((kept, missing)) => Failure::new(1, format!("{message}; {kept} is kept"))
            .with_hint(format!("restore {missing}, or remove {kept} and run: dkms generate_mok")),
        None => Failure::new(1, message).with_hint(SEE_SETTINGS),
    })
}

/// The state of a key file or a certificate file.
enum FileState {
    Present,
    /// The path does not exist.
    Missing,
    /// The path exists but is not a readable file. Contains the reason.
    Unusable(String),
}

impl FileState {
    fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(about) if about.is_file() => Self::Present,
            Ok(_) => Self::Unusable("not a regular file".to_owned()),
            Err(error) => match fs::symlink_metadata(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => Self::Missing,
                // The path exists, such as a link to an unmounted disk.
                _ => Self::Unusable(error.to_string()),
            },
        }
    }
}

/// Returns the PIN of the token or the passphrase of the private key: from the URI, from the
/// caller's `KBUILD_SIGN_PIN`, or from the file that the settings name. Returns `None` if none of
/// them is set.
///
/// # Errors
/// [`Failure`] if the file named in the settings is needed but cannot be read, or if the private key
/// is encrypted and no passphrase is set.
pub(super) fn find_pin(keys: &Keys, machine: &Machine) -> Result<Option<Pin>, Failure> {
    if let Some(pin) = keys.pin.as_ref().or_else(|| machine.env.pin()) {
        return Ok(Some(pin.clone()));
    }
    if let Some(file) = machine.settings.pin_file() {
        return read_pin(file, machine).map(Some);
    }
    // The file `build_environment` may set the passphrase.
    let may_follow = machine.settings.build_environment().is_some();
    if !keys.is_in_token() && !may_follow && is_encrypted(Path::new(&keys.key)) {
        let message = format!("{}: the key is encrypted, but no passphrase is set", keys.key);
        return Err(
            Failure::new(1, message).with_hint("see: signing.pin_file in alpm-dkms.toml(5)")
        );
    }
    Ok(None)
}

/// Reads the PIN from the first line of `file`. Warns if other users can read it.
fn read_pin(file: &Path, machine: &Machine) -> Result<Pin, Failure> {
    let unreadable = |why: &str| Failure::new(1, format!("cannot read {}: {why}", file.display()));
    let about = fs::metadata(file).map_err(|error| unreadable(&error.to_string()))?;
    if !about.is_file() {
        return Err(unreadable("not a regular file"));
    }
    let text = fs::read(file).map_err(|error| unreadable(&error.to_string()))?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(unreadable("its first line is empty"));
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = file.display();
        machine.warnings.add(format!(
            "{path}: other users can read the PIN: mode {mode:04o}\n  run: chmod 600 {path}"
        ));
    }
    Ok(Pin::new(std::ffi::OsStr::from_bytes(line)))
}

/// Returns true if the PEM file `key` contains an encrypted private key.
fn is_encrypted(key: &Path) -> bool {
    let text = fs::read(key).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// Creates the private key and the certificate, which must both be missing.
///
/// # Errors
/// [`Failure`] if they cannot be created.
pub(super) fn create_keys(keys: &Keys, machine: &Machine) -> Result<(), Failure> {
    if keys.origin == KeyOrigin::Shim {
        return make_shim_keys(machine).map_err(|why| Failure::new(1, why));
    }
    generate(keys, machine).map_err(|why| {
        let (key, certificate) = (&keys.key, keys.certificate.display());
        Failure::new(
            1,
            format!("cannot create the key {key} and the certificate {certificate}: {why}"),
        )
    })
}

fn generate(keys: &Keys, machine: &Machine) -> Result<(), String> {
    let text = |error: FileError| error.to_string();
    let (key, certificate) = (Path::new(&keys.key), keys.certificate.as_path());
    let dir = certificate.parent().ok_or("not a file name")?;
    let new = tempfile::Builder::new()
        .prefix(durable::UNFINISHED)
        .tempdir_in(dir)
        .map_err(|error| format!("cannot create files in {}: {error}", dir.display()))?;
    let (new_key, new_certificate) = (new.path().join("key"), new.path().join("certificate"));
    let ended = Program::new(&machine.tools.openssl, &machine.env)
        .args(["req", "-new", "-x509", "-sha256", "-days", "36500", "-outform", "DER"])
        .args(["-subj", "/CN=DKMS module signing key"])
        .args(["-addext", "extendedKeyUsage=codeSigning"])
        .args(["-newkey", "rsa:2048", "-nodes", "-keyout"])
        .arg(&new_key)
        .arg("-out")
        .arg(&new_certificate)
        .deadline(DEADLINE)
        .run()
        .map_err(|error| error.to_string())?;
    if !ended.success() {
        return Err(ended.complaint().replace('\n', "; "));
    }
    // Until now, the private directory has protected the key.
    fs::set_permissions(&new_key, fs::Permissions::from_mode(0o600))
        .map_err(FileError::when("set the mode of", &new_key))
        .map_err(text)?;
    place(&new_key, key).map_err(text)?;
    if let Err(error) = place(&new_certificate, certificate) {
        // A key without its certificate would prevent another attempt.
        let _ = fs::remove_file(key);
        return Err(text(error));
    }
    durable::sync_dir(dir).map_err(text)
}

/// Syncs the file `from`, then creates the hard link `to`, which must not exist.
fn place(from: &Path, to: &Path) -> Result<(), FileError> {
    File::open(from).and_then(|file| file.sync_all()).map_err(FileError::when("write", from))?;
    fs::hard_link(from, to).map_err(FileError::when("write", to))
}
