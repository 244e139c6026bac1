//! Creates the machine owner key and explains how to enrol it (`dkms generate_mok`).

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::decide::unread;
use super::keys::{choose_keys, create_keys, have_keys};
use crate::failure::Failure;
use crate::machine::{Kernel, Machine, Trees, running_release};
use crate::names::KernelRelease;
use crate::objects::Keys;

/// The path of the firmware variable with the state of Secure Boot (UEFI 3.3). The file contains
/// four bytes of attributes, followed by 1 if Secure Boot is enabled and 0 otherwise.
const SECURE_BOOT: &str =
    "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The machine owner key (MOK), which signs modules.
///
/// The `Display` text names the files and explains how to enrol the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mok {
    /// The private key: the path of a file, or a `pkcs11:` URI without a PIN.
    pub key: String,
    /// The path of the certificate, which must be enrolled in the firmware.
    pub certificate: PathBuf,
    /// Whether the key and the certificate were missing and have been created.
    pub made: bool,
    /// Whether Secure Boot is enabled, or `None` if the firmware does not report its state.
    pub secure_boot: Option<bool>,
}

/// Creates the default key and certificate for signing modules, unless they exist or the settings
/// name others.
///
/// The paths in settings can contain `$kernelver`, which is replaced with `kernel`.
///
/// # Errors
/// [`Failure`] with dkms's exit code 1 if a file is missing and is not created.
pub fn generate_mok(machine: &Machine, kernel: Option<&KernelRelease>) -> Result<Mok, Failure> {
    let release = match kernel {
        Some(release) => release.clone(),
        None => running_release()
            .ok_or_else(|| Failure::new(1, "cannot determine the release of the running kernel"))?,
    };
    let dir = machine.trees.kernel(&release);
    let headers = Some(dir.join("build")).filter(|build| build.join("include").is_dir());
    let about =
        Kernel { release, dir, alive: false, headers, config: None, pkgbase: None, package: None };
    let framework = machine.framework(kernel);
    if let Some(file) = &framework.unread {
        return Err(unread(file));
    }
    let keys = choose_keys(machine, &about, &framework);
    let made = !have_keys(&keys, &framework)?;
    if made {
        create_keys(&keys, machine)?;
    }
    let Keys { key, certificate, .. } = keys;
    Ok(Mok { key, certificate, made, secure_boot: secure_boot(&machine.trees) })
}

/// Returns the state of Secure Boot: true if it is enabled, or `None` if the firmware does not
/// report the state.
pub(crate) fn secure_boot(trees: &Trees) -> Option<bool> {
    fs::read(trees.root.join(SECURE_BOOT)).ok()?.get(4).map(|on| *on == 1)
}

/// Returns true if a file contains a certificate in the PEM format.
fn is_pem(certificate: &Path) -> bool {
    fs::read(certificate).is_ok_and(|text| text.starts_with(b"-----BEGIN"))
}

/// Returns true if the private key in the file `key` has a passphrase (RFC 1421, RFC 5958).
fn is_encrypted(key: &str) -> bool {
    fs::read_to_string(key).is_ok_and(|text| {
        let head: Vec<&str> = text.lines().take(2).collect();
        head.iter().any(|line| line.contains("ENCRYPTED"))
    })
}

impl fmt::Display for Mok {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.made { "created" } else { "already exist" };
        let certificate = self.certificate.display();
        writeln!(f, "signing key and certificate {what}:\n  {}\n  {certificate}", self.key)?;
        f.write_str(match self.secure_boot {
            Some(true) => "Secure Boot: enabled; modules load once the certificate is enrolled\n",
            Some(false) => "Secure Boot: disabled; modules load without a signature\n",
            None => "Secure Boot: unknown\n",
        })?;
        f.write_str("to enrol the certificate, run: ")?;
        if is_pem(&self.certificate) {
            // mokutil accepts only DER.
            let name = self.certificate.file_name().unwrap_or_default().display();
            writeln!(f, "openssl x509 -in {certificate} -outform DER -out /tmp/{name}.der")?;
            write!(f, "  then run: mokutil --import /tmp/{name}.der\n  ")?;
        } else {
            write!(f, "mokutil --import {certificate}\n  ")?;
        }
        f.write_str(
            "then choose a password, reboot, select \"Enroll MOK\" and enter the password\n  \
             the kernel trusts the certificate for modules only if the machine boots through shim, and \
             after: mokutil --trust-mok",
        )?;
        if is_encrypted(&self.key) {
            f.write_str(
                "\nthe key has a passphrase: set KBUILD_SIGN_PIN for one command, or \
                 signing.pin_file for all runs\n  see: alpm-dkms.toml(5)",
            )?;
        }
        Ok(())
    }
}
