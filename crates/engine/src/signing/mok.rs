//! Makes the machine owner's key and explains its use (`dkms generate_mok`).

use std::fmt;
use std::fs;
use std::path::PathBuf;

use super::keys::{choose_keys, provide_keys};
use crate::failure::Failure;
use crate::machine::{Kernel, Machine, Trees, running_release};
use crate::names::KernelRelease;
use crate::objects::Keys;

/// The variable of the firmware that says whether Secure Boot is on: four bytes of attributes,
/// then 1 or 0 (UEFI 3.3).
const SECURE_BOOT: &str =
    "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The machine owner's key. As text: where it is, and how the firmware learns of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mok {
    /// The private key: a file, or a `pkcs11:` URI.
    pub key: String,
    /// Its certificate.
    pub certificate: PathBuf,
    /// Whether any of the two was made just now.
    pub made: bool,
    /// Whether Secure Boot is on; nothing if this machine has none.
    pub secure_boot: Option<bool>,
}

/// Sees to it that there is a key to sign modules with.
///
/// The settings are read as for `kernel`, since paths in them may name `$kernelver`.
///
/// # Errors
/// [`Failure`] with dkms's exit code 1 if there is none and none can be made.
pub fn generate_mok(machine: &Machine, kernel: Option<&KernelRelease>) -> Result<Mok, Failure> {
    let release = match kernel {
        Some(release) => release.clone(),
        None => running_release()
            .ok_or_else(|| Failure::new(1, "the running kernel does not tell its release"))?,
    };
    let dir = machine.trees.kernel(&release);
    let headers = Some(dir.join("build")).filter(|build| build.join("include").is_dir());
    let about = Kernel { release, dir, alive: false, headers, config: None, pkgbase: None };
    let keys = choose_keys(machine, &about, &machine.framework(kernel));
    let made = provide_keys(&keys, machine).map_err(|what| Failure::new(1, what))?;
    let Keys { key, certificate, .. } = keys;
    Ok(Mok { key, certificate, made, secure_boot: secure_boot(&machine.trees) })
}

/// Whether the firmware lets only signed code run; nothing if it does not say.
pub(super) fn secure_boot(trees: &Trees) -> Option<bool> {
    fs::read(trees.root.join(SECURE_BOOT)).ok()?.get(4).map(|on| *on == 1)
}

impl fmt::Display for Mok {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.made { "Made" } else { "There is already" };
        writeln!(f, "{what} the key {}", self.key)?;
        writeln!(f, "with the certificate {}.", self.certificate.display())?;
        match self.secure_boot {
            Some(true) => writeln!(f, "Secure Boot is on: modules load once the key is enrolled.")?,
            Some(false) => writeln!(f, "Secure Boot is off: modules load without a signature.")?,
            None => writeln!(f, "This machine does not tell of Secure Boot.")?,
        }
        write!(
            f,
            "To enrol it: mokutil --import {}, choose a password, reboot, and answer \"Enroll MOK\" \
             to what asks at the screen. Without shim: enrol it with your own keys (sbctl(8)).",
            self.certificate.display()
        )
    }
}
