//! Objects are signed.

use std::path::Path;

use dkms_engine::signing;

use super::*;

/// Appends a signature that tells what it was called with, in the form that the kernel reads.
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

#[test]
fn objects_are_signed_and_signed_anew_with_another_key() {
    let mut machine = TestMachine::new();
    machine.root.source("foo", "1.0");
    machine.signs(SIGN_FILE);
    clean(&machine.install());
    let first = machine.signature().unwrap();
    assert!(first.starts_with("sha256 certificate:"), "{first}");
    let key = machine.root.path().join("var/lib/dkms/mok.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(machine.sync(&[]).finished.len(), 0);

    machine.root.write("etc/dkms/own.key", "a key");
    machine.root.write("etc/dkms/own.pub", "a certificate");
    let paths =
        "mok_signing_key=/etc/dkms/own.key\nmok_certificate='/etc/${kernelver:+dkms}/own.pub'\n";
    let paths = paths.replace("${kernelver:+dkms}", "dkms");
    machine.root.write("etc/dkms/framework.conf", format!("try_sign_modules=true\n{paths}"));
    clean(&machine.sync(&[]));
    let second = machine.signature().unwrap();
    assert_ne!(first, second);
    assert_eq!(machine.builds(), 1, "nothing was compiled again");
    assert_eq!(machine.sync(&[]).finished.len(), 0);
}

#[test]
fn what_cannot_be_signed_is_installed_with_a_warning() {
    let mut machine = TestMachine::new();
    machine.root.source("foo", "1.0");
    machine.signs("#!/bin/sh\necho half >>\"$4\"\necho no such key >&2\nexit 1\n");
    let report = machine.install();
    assert!(report.is_clean());
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.starts_with("foo.ko for 7.2.12-arch1-1 is not signed: no such key; "));
    assert!(warning.contains("Secure Boot"), "{warning}");
    assert_eq!(machine.signature(), None);
    assert_eq!(machine.sync(&[]).finished.len(), 0, "it is not tried at every transaction");
}

#[test]
fn who_cannot_sign_says_so_once() {
    let mut machine = TestMachine::new();
    machine.root.source("foo", "1.0");
    machine.root.source("bar", "1.0");
    machine.signs(SIGN_FILE);
    let on = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    machine.root.write(on, "\u{6}\0\0\0\u{1}");
    machine.root.remove(format!("usr/lib/modules/{K}/build/scripts/sign-file"));
    let report = machine.sync(&["foo-1.0", "bar-1.0"]);
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.contains("Secure Boot is on, so the kernel will refuse"), "{warning}");
}

#[test]
fn nothing_is_signed_in_a_chroot_or_where_it_is_switched_off() {
    for setting in ["", "try_sign_modules=false\n", "try_sign_modules=not_in_chroot\n"] {
        let mut machine = TestMachine::new();
        machine.root.source("foo", "1.0");
        machine.signs(SIGN_FILE);
        machine.root.write("etc/dkms/framework.conf", setting);
        clean(&machine.install());
        assert_eq!(machine.signature(), None);
        assert!(!machine.root.exists("var/lib/dkms/mok.key"));
    }
}

#[test]
fn a_key_is_made_once_and_never_replaced() {
    let test = TestMachine::new();
    let machine = test.machine();
    let kernel = K.parse().unwrap();
    let mok = signing::generate_mok(&machine, Some(&kernel)).unwrap();
    assert!(mok.made);
    assert!(mok.to_string().contains("mokutil --import"));
    let key = fs::read(&mok.key).unwrap();
    assert!(!signing::generate_mok(&machine, Some(&kernel)).unwrap().made);
    fs::remove_file(&mok.certificate).unwrap();
    assert!(signing::generate_mok(&machine, Some(&kernel)).unwrap().made);
    assert_eq!(fs::read(&mok.key).unwrap(), key, "it may be enrolled");
    assert!(Path::new(&mok.certificate).is_file());

    test.root.write(
        "etc/dkms/framework.conf",
        "mok_signing_key='pkcs11:object=x'\nmok_certificate=/none\n",
    );
    let failure = signing::generate_mok(&test.machine(), Some(&kernel)).unwrap_err();
    assert_eq!(failure.code, 1);
    assert!(failure.message.contains("pkcs11:object=x"), "{}", failure.message);
}
