//! Checks the signatures of objects for kernels that load only signed modules.

use std::fs;
use std::path::Path;

use crate::machine::{Kernel, KernelConfig, Machine};
use crate::names::{KernelRelease, ModuleId};
use crate::signing::{Certificate, Trust, certificate_file, secure_boot, trust_in};

/// The signatures that a kernel requires.
pub(super) struct Signatures {
    /// The setting that makes the kernel load only signed modules.
    because: &'static str,
    /// The certificate of the key that signs modules for this kernel; `None` if it cannot be read.
    certificate: Option<Certificate>,
    trust: Trust,
}

impl Signatures {
    /// Returns the signatures that `kernel` requires, or `None` if it also loads unsigned modules.
    pub(super) fn required_by(machine: &Machine, kernel: &Kernel) -> Option<Self> {
        let config = machine.kernel_config(kernel)?;
        let because = reason(machine, &config)?;
        let file = certificate_file(machine, kernel);
        let certificate = Certificate::read(&file);
        let trust = certificate
            .as_ref()
            .map_or(Trust::Unknown, |certificate| trust_in(machine, certificate, &file));
        Some(Self { because, certificate, trust })
    }

    /// Returns the reason why the kernel refuses an object with this signature, or `None` if the
    /// kernel may load the object.
    pub(super) fn problem(&self, signature: Option<&[u8]>) -> Option<String> {
        let because = self.because;
        let Some(signature) = signature else {
            return Some(format!(
                "not signed, but the kernel loads only signed modules ({because})"
            ));
        };
        let certificate = self.certificate.as_ref()?;
        if !certificate.has_signed(signature) {
            return Some("signed with a key other than the configured one".to_owned());
        }
        match &self.trust {
            Trust::Unknown | Trust::Trusted => None,
            Trust::Unlisted { .. } => {
                Some(format!("signed with a key that the kernel does not trust ({because})"))
            }
            Trust::NotForModules => Some(format!(
                "signed with an enrolled key that the kernel does not trust for modules ({because})"
            )),
        }
    }

    /// Returns the advice for a refused object of the module `id`.
    pub(super) fn advice(&self, id: &ModuleId, kernel: &KernelRelease) -> String {
        match &self.trust {
            Trust::Unlisted { certificate } => format!("run: mokutil --import {certificate}"),
            Trust::NotForModules => "run: mokutil --trust-mok".to_owned(),
            Trust::Unknown | Trust::Trusted => {
                format!("run: dkms install {id} -k {kernel} --force")
            }
        }
    }
}

/// Returns the setting that makes a kernel with this configuration load only signed modules
/// (`Documentation/admin-guide/module-signing.rst` in the kernel's source, kernel_lockdown(7)).
///
/// Reads the command line and lockdown state of the running kernel, and assumes that other kernels
/// boot in the same way.
fn reason(machine: &Machine, config: &KernelConfig) -> Option<&'static str> {
    if config.is_enabled("CONFIG_MODULE_SIG_FORCE") {
        return Some("CONFIG_MODULE_SIG_FORCE");
    }
    if !config.is_enabled("CONFIG_MODULE_SIG") {
        return None;
    }
    let forced = ["INTEGRITY", "CONFIDENTIALITY"];
    if forced.iter().any(|it| config.is_enabled(&format!("CONFIG_LOCK_DOWN_KERNEL_FORCE_{it}"))) {
        return Some("lockdown");
    }
    // Another root belongs to another machine.
    if machine.trees.root != Path::new("/") || machine.is_chroot() {
        return None;
    }
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if let Some(reason) = reason_in_command_line(&line) {
        return Some(reason);
    }
    let locked = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let with_secure_boot = config.is_enabled("CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT");
    if with_secure_boot && secure_boot(&machine.trees) == Some(true) {
        return Some("Secure Boot");
    }
    (locked.contains("[integrity]") || locked.contains("[confidentiality]")).then_some("lockdown")
}

/// Returns the parameter in a kernel command line that makes the kernel load only signed modules.
fn reason_in_command_line(line: &str) -> Option<&'static str> {
    let mut words = line.split_whitespace();
    words.find_map(|word| match word.split_once('=').unwrap_or((word, "1")) {
        ("module.sig_enforce", "1" | "y" | "Y") => Some("module.sig_enforce"),
        ("lockdown", "integrity" | "confidentiality") => Some("lockdown"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::enforced("quiet module.sig_enforce=1", Some("module.sig_enforce"))]
    #[case::flag("module.sig_enforce", Some("module.sig_enforce"))]
    #[case::off("module.sig_enforce=0", None)]
    #[case::lockdown("root=/dev/sda lockdown=integrity", Some("lockdown"))]
    #[case::neither("root=/dev/sda quiet", None)]
    fn reads_the_command_line(#[case] line: &str, #[case] want: Option<&str>) {
        assert_eq!(reason_in_command_line(line), want);
    }
}
