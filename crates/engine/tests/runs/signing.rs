//! Tests of signing objects and generating keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dkms_engine::signing;

use crate::fixture::{Fixture, K1, PLACED, assert_clean};

/// A fake `sign-file` that appends its arguments as a signature, in the format that the kernel
/// uses.
const SIGN_FILE: &str = r#"#!/bin/sh
[ -f "$2" ] || exit 1
signature="hash:$1 certificate:$(cksum <"$3")"
{
    printf %s "$signature"
    printf '\0\0\2\0\0\0\0\0'
    printf "$(printf '\\%03o\\%03o\\%03o\\%03o' 0 0 0 ${#signature})"
    printf '~Module signature appended~\n'
} >>"$4"
"#;

/// Configures the kernel for signed modules. `sign_file` is the text of its `sign-file` program.
fn sign_with(fixture: &Fixture, sign_file: &str) {
    let config = "CONFIG_MODULES=y\nCONFIG_MODULE_SIG_HASH=\"sha256\"\n";
    let build = format!("usr/lib/modules/{K1}/build");
    fixture.root.write(format!("{build}/.config"), config);
    fixture.root.write(format!("{build}/include/config/auto.conf"), config);
    fixture.root.executable(format!("{build}/scripts/sign-file"), sign_file);
    fixture.root.write("etc/dkms/framework.conf", "try_sign_modules=true\n");
}

/// Returns the signature of the installed object; `None` if it is not signed.
fn signature(fixture: &Fixture) -> Option<String> {
    let object = fs::read(fixture.root.at(PLACED)).unwrap();
    let text = String::from_utf8_lossy(&object).into_owned();
    assert!(text.matches("~Module signature").count() < 2, "the object is signed twice");
    let (_, signature) = text.rsplit_once("hash:")?;
    Some(signature.split('\0').next().unwrap_or_default().to_owned())
}

#[test]
fn objects_are_signed_again_when_the_key_changes() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, SIGN_FILE);
    assert_clean(&fixture.install());
    let first = signature(&fixture).unwrap();
    assert!(first.starts_with("sha256 certificate:"), "{first}");
    let key = fixture.root.path().join("var/lib/dkms/mok.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fixture.sync(&[], &[K1]).finished.len(), 0);

    fixture.root.write("etc/dkms/own.key", "a key");
    fixture.root.write("etc/dkms/own.pub", "a certificate");
    let paths =
        "mok_signing_key=/etc/dkms/own.key\nmok_certificate='/etc/${kernelver:+dkms}/own.pub'\n";
    let paths = paths.replace("${kernelver:+dkms}", "dkms");
    fixture.root.write("etc/dkms/framework.conf", format!("try_sign_modules=true\n{paths}"));
    assert_clean(&fixture.sync(&[], &[K1]));
    let second = signature(&fixture).unwrap();
    assert_ne!(first, second);
    assert_eq!(fixture.builds(), 1, "signing again does not compile");
    assert_eq!(fixture.sync(&[], &[K1]).finished.len(), 0);
}

#[test]
fn unsigned_objects_are_installed_with_a_warning() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, "#!/bin/sh\necho half >>\"$4\"\necho no such key >&2\nexit 1\n");
    let report = fixture.install();
    assert!(report.is_clean());
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.starts_with("foo.ko for 7.2.12-arch1-1: not signed: no such key; "));
    assert!(warning.contains("Secure Boot"), "{warning}");
    assert_eq!(signature(&fixture), None);
    assert_eq!(fixture.sync(&[], &[K1]).finished.len(), 0, "later transactions do not retry");
}

#[test]
fn missing_sign_file_causes_one_warning() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.root.source("bar", "1.0");
    sign_with(&fixture, SIGN_FILE);
    let on = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    fixture.root.write(on, "\u{6}\0\0\0\u{1}");
    fixture.root.remove(format!("usr/lib/modules/{K1}/build/scripts/sign-file"));
    let report = fixture.sync(&["foo-1.0", "bar-1.0"], &[K1]);
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.contains("Secure Boot is enabled, so the kernel will not load"), "{warning}");
}

#[test]
fn objects_are_not_signed_in_a_chroot_or_if_signing_is_disabled() {
    for setting in ["", "try_sign_modules=false\n", "try_sign_modules=not_in_chroot\n"] {
        let mut fixture = Fixture::new();
        fixture.root.source("foo", "1.0");
        sign_with(&fixture, SIGN_FILE);
        fixture.root.write("etc/dkms/framework.conf", setting);
        assert_clean(&fixture.install());
        assert_eq!(signature(&fixture), None);
        assert!(!fixture.root.exists("var/lib/dkms/mok.key"));
    }
}

#[test]
fn key_is_generated_once_and_never_replaced() {
    let fixture = Fixture::new();
    let machine = fixture.machine();
    let kernel = K1.parse().unwrap();
    let mok = signing::generate_mok(&machine, Some(&kernel)).unwrap();
    assert!(mok.made);
    assert!(mok.to_string().contains("mokutil --import"));
    let key = fs::read(&mok.key).unwrap();
    assert!(!signing::generate_mok(&machine, Some(&kernel)).unwrap().made);
    fs::remove_file(&mok.certificate).unwrap();
    assert!(signing::generate_mok(&machine, Some(&kernel)).unwrap().made);
    assert_eq!(fs::read(&mok.key).unwrap(), key, "the key may be enrolled");
    assert!(Path::new(&mok.certificate).is_file());

    fixture.root.write(
        "etc/dkms/framework.conf",
        "mok_signing_key='pkcs11:object=x'\nmok_certificate=/none\n",
    );
    let failure = signing::generate_mok(&fixture.machine(), Some(&kernel)).unwrap_err();
    assert_eq!(failure.code, 1);
    assert!(failure.message.contains("pkcs11:object=x"), "{}", failure.message);
}
