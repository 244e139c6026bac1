//! The certificate of a signing key, and the kernel's trust in the certificate.

use std::fs;
use std::path::Path;

use memchr::memmem;

use crate::machine::{Machine, Trees};

/// The GUID of the variables that shim passes on to the kernel.
const SHIM: &str = "605dab50-e046-4300-abb6-3dd810dd8b23";

/// The object identifier of the extension subjectKeyIdentifier (RFC 5280, 4.2.1.2), in DER.
const SUBJECT_KEY_ID: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x0e];

/// A certificate (X.509) of a key that signs modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    der: Vec<u8>,
    /// The issuer and the serial number, as in a signature that sign-file makes (RFC 5652,
    /// IssuerAndSerialNumber).
    issuer_and_serial: Vec<u8>,
    /// The subject key identifier; `None` if the certificate has none.
    key_id: Option<Vec<u8>>,
}

/// The kernel's trust in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The trust is unknown: the kernel does not show its keys, or shows the keys of another
    /// machine.
    Unknown,
    Trusted,
    /// The kernel does not have the certificate.
    Unlisted {
        certificate: String,
    },
    /// The certificate is enrolled, but the kernel trusts it only for booting other kernels: shim
    /// does not pass on the variable MokListTrustedRT (`security/integrity/platform_certs`).
    NotForModules,
}

impl Certificate {
    /// Reads a certificate file in DER format. Returns `None` if it cannot be read or parsed.
    pub(crate) fn read(file: &Path) -> Option<Self> {
        Self::parse(&fs::read(file).ok()?)
    }

    fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate, _) = element(der)?;
        let (_, mut fields, _) = element(certificate)?;
        // The version is optional, and has the tag [0].
        if fields.first() == Some(&0xa0) {
            fields = element(fields)?.2;
        }
        let (serial, _, rest) = element(fields)?;
        let (_, _, rest) = element(rest)?;
        let (issuer, _, _) = element(rest)?;
        Some(Self {
            der: der.to_owned(),
            issuer_and_serial: [issuer, serial].concat(),
            key_id: key_id(der),
        })
    }

    /// Returns true if the key of this certificate made the signature, a CMS message in DER. Does
    /// not check the signature itself.
    pub(crate) fn has_signed(&self, signature: &[u8]) -> bool {
        let contains = |bytes: &[u8]| memmem::find(signature, bytes).is_some();
        contains(&self.issuer_and_serial) || self.key_id.as_deref().is_some_and(contains)
    }
}

/// Returns the first element of `der` with its header, the same element without its header, and the
/// bytes after the element.
fn element(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (header, length) = match (der.get(1)?, der.get(2..)?) {
        (length @ ..=0x7f, _) => (2, usize::from(*length)),
        (0x81, [length, ..]) => (3, usize::from(*length)),
        (0x82, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        _ => return None,
    };
    let end = header + length;
    Some((der.get(..end)?, der.get(header..end)?, der.get(end..)?))
}

/// Returns the subject key identifier in a certificate.
fn key_id(der: &[u8]) -> Option<Vec<u8>> {
    let at = memmem::find(der, SUBJECT_KEY_ID)? + SUBJECT_KEY_ID.len();
    let (_, extension, _) = element(der.get(at..)?)?;
    let (_, id, _) = element(extension)?;
    Some(id.to_owned())
}

/// Determines how far the running kernel trusts `certificate` for modules. `file` is the path from
/// which the certificate was read.
///
/// A machine owner key is in the keyring `.machine` if shim passes on MokListTrustedRT, and
/// otherwise in `.platform`, which is not used for modules. `/proc/keys` does not show to which
/// keyring a key belongs.
pub(crate) fn trust_in(machine: &Machine, certificate: &Certificate, file: &Path) -> Trust {
    if machine.trees.root != Path::new("/") || machine.is_chroot() {
        return Trust::Unknown;
    }
    let keys = fs::read_to_string("/proc/keys").unwrap_or_default();
    trust(certificate, &keys, &machine.trees, file)
}

fn trust(certificate: &Certificate, keys: &str, trees: &Trees, file: &Path) -> Trust {
    // Only root sees the keys of the kernel.
    let Some(id) = certificate.key_id.as_ref().filter(|_| keys.contains(" asymmetri ")) else {
        return Trust::Unknown;
    };
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    if !keys.lines().any(|line| line.contains(" asymmetri ") && line.contains(&id)) {
        return Trust::Unlisted { certificate: file.display().to_string() };
    }
    let variable =
        |name: &str| fs::read(trees.root.join(format!("sys/firmware/efi/efivars/{name}-{SHIM}")));
    let is_mok =
        variable("MokListRT").is_ok_and(|list| memmem::find(&list, &certificate.der).is_some());
    if is_mok && variable("MokListTrustedRT").is_err() {
        return Trust::NotForModules;
    }
    Trust::Trusted
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use super::*;
    use crate::os::process::{Environment, Program};

    /// Creates a key and signs a file with it, using openssl. Returns the key's certificate and the
    /// signature.
    fn certificate_and_signature(root: &TestRoot) -> (Certificate, Vec<u8>) {
        let openssl = |args: &[&str]| {
            let env = Environment::fixed();
            let ended = Program::new("openssl", &env).args(args).cwd(root.path()).run().unwrap();
            assert!(ended.success(), "{}", ended.complaint());
        };
        let new =
            "req -new -x509 -days 2 -subj /CN=test -newkey rsa:2048 -nodes -keyout k -out c.pem";
        openssl(&new.split(' ').collect::<Vec<_>>());
        openssl(&["x509", "-in", "c.pem", "-outform", "DER", "-out", "c.der"]);
        root.write("object", "content");
        let sign = "cms -sign -binary -nocerts -noattr -in object -signer c.pem -inkey k -outform DER \
                    -out signature";
        openssl(&sign.split_whitespace().collect::<Vec<_>>());
        let certificate = Certificate::read(&root.at("c.der")).unwrap();
        (certificate, std::fs::read(root.at("signature")).unwrap())
    }

    #[test]
    fn recognises_its_own_signature() {
        let (one, other) = (TestRoot::new(), TestRoot::new());
        let (certificate, signature) = certificate_and_signature(&one);
        let (_, foreign) = certificate_and_signature(&other);
        assert!(certificate.has_signed(&signature));
        assert!(!certificate.has_signed(&foreign));
        assert_eq!(Certificate::parse(b"no certificate"), None);
    }

    #[test]
    fn trusts_keys_of_the_kernel() {
        let root = TestRoot::new();
        let (certificate, _) = certificate_and_signature(&root);
        let trees = Trees::under(root.path());
        let id: String =
            certificate.key_id.as_ref().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        let line = |id: &str| {
            format!("1c2b I------ 1 perm 1f030000 0 0 asymmetri test: {id}: X509.rsa x []\n")
        };
        let trust = |keys: &str| trust(&certificate, keys, &trees, Path::new("/c.der"));
        let unlisted = Trust::Unlisted { certificate: "/c.der".into() };
        assert_eq!(trust(""), Trust::Unknown);
        assert_eq!(trust(&line("0123")), unlisted);
        assert_eq!(trust(&line(&id)), Trust::Trusted);
        let variable = |name: &str| format!("sys/firmware/efi/efivars/{name}-{SHIM}");
        root.write(variable("MokListRT"), [b"list: ", &certificate.der[..]].concat());
        assert_eq!(trust(&line(&id)), Trust::NotForModules);
        root.write(variable("MokListTrustedRT"), "\x01");
        assert_eq!(trust(&line(&id)), Trust::Trusted);
    }
}
