//! Tests of the PIN of a token and the passphrase of a key, which only sign-file may see.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rstest::rstest;

use crate::fixture::{BUILT, Fixture, K1, assert_clean};
use crate::signing::{SIGN_FILE, sign_with, signature};

/// A fake `sign-file` that logs its arguments, its PIN and the content of the file in `pin-source`.
const LOGGING: &str = r#"log() { printf '%s\n' "$*" >>"${0%/usr/*}/signed"; }
log "argv: $2"
log "variable: $KBUILD_SIGN_PIN"
case $2 in *pin-source=file:*) log "file: $(cat "${2##*=file:}")" ;; esac
"#;

/// The setting of the key, the alpm-dkms.toml, and the PIN that sign-file receives.
#[rstest]
#[case::in_the_uri("'pkcs11:object=a?pin-value=12%3334'", "", "12334")]
#[case::in_a_file("pkcs11:object=a", "[signing]\npin_file = '/etc/dkms/pin'\n", "98 76")]
#[case::of_the_token_in_the_path(r#""pkcs11:pin-value=q&object=a""#, "", "q")]
fn pin_reaches_only_sign_file(#[case] key: &str, #[case] own: &str, #[case] pin: &str) {
    let mut fixture = Fixture::new();
    fixture.script("PRE_BUILD", r#"env >"${0%/var/*}/environment"; cat /proc/$$/cmdline >&2"#);
    let sign_file = SIGN_FILE.replace("[ -f \"$2\" ] || exit 1\n", LOGGING);
    sign_with(&fixture, &sign_file);
    fixture.root.write("c", "a certificate");
    fixture.root.write("etc/dkms/pin", "98 76\r\nsecond line\n");
    fs::set_permissions(fixture.root.at("etc/dkms/pin"), fs::Permissions::from_mode(0o600))
        .unwrap();
    fixture.root.write("etc/dkms/alpm-dkms.toml", own);
    let settings = format!("try_sign_modules=true\nmok_signing_key={key}\nmok_certificate=/c\n");
    fixture.root.write("etc/dkms/framework.conf", settings);
    assert_clean(&fixture.install());
    assert!(signature(&fixture).is_some());

    let log = fixture.root.read("signed");
    let lines: Vec<_> = log.lines().collect();
    let [argv, variable, file] = lines[..] else { panic!("{log}") };
    assert!(argv.starts_with("argv: pkcs11:object=a?pin-source=file:/"), "{log}");
    assert_eq!((variable, file), (&*format!("variable: {pin}"), &*format!("file: {pin}")));
    let environment = fixture.root.read("environment");
    assert!(!environment.contains("KBUILD_SIGN_PIN"), "{environment}");
    let kept = fixture.root.listing(BUILT);
    assert!(!kept.contains("pin"), "{kept}");
}

#[test]
fn pin_in_the_build_environment_reaches_only_sign_file() {
    let mut fixture = Fixture::new();
    fixture.script("PRE_BUILD", r#"env >"${0%/var/*}/environment""#);
    sign_with(&fixture, &SIGN_FILE.replace("[ -f \"$2\" ] || exit 1\n", LOGGING));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n";
    fixture.root.write("k", encrypted);
    fixture.root.write("c", "a certificate");
    fixture.root.write("etc/dkms/env", "export KBUILD_SIGN_PIN=4321 OTHER=x\n");
    let settings = "try_sign_modules=true\nmok_signing_key=/k\nmok_certificate=/c\n";
    let environment = "build_environment=/etc/dkms/env\n";
    fixture.root.write("etc/dkms/framework.conf", format!("{settings}{environment}"));
    assert_clean(&fixture.install());
    let log = fixture.root.read("signed");
    assert!(log.contains("variable: 4321\n") && !log.contains("pin-source"), "{log}");
    let seen = fixture.root.read("environment");
    assert!(seen.contains("OTHER=x") && !seen.contains("4321"), "{seen}");
}

#[rstest]
#[case::encrypted("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "", "is encrypted")]
#[case::traditional("Proc-Type: 4,ENCRYPTED\n", "", "signing.pin_file")]
#[case::no_file("a key", "[signing]\npin_file = '/none'\n", "/none: No such file")]
#[case::empty_file("a key", "[signing]\npin_file = '/empty'\n", "first line is empty")]
fn missing_pin_is_reported(#[case] key: &str, #[case] own: &str, #[case] message: &str) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, SIGN_FILE);
    fixture.root.write("k", key);
    fixture.root.write("c", "a certificate");
    fixture.root.write("empty", "\n1234\n");
    fixture.root.write("etc/dkms/alpm-dkms.toml", own);
    let settings = "try_sign_modules=true\nmok_signing_key=/k\nmok_certificate=/c\n";
    fixture.root.write("etc/dkms/framework.conf", settings);
    let report = fixture.install();
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.contains(message), "{warning}");
    assert_eq!(signature(&fixture), None);
    assert_eq!(fixture.sync(&[], &[K1]).finished.len(), 0, "later transactions do not retry");
}

#[rstest]
#[case::unquoted("mok_signing_key=pkcs11:object=a;pin-value=1234\n")]
#[case::in_an_error("mok_signing_key=pkcs11:object=a&pin-value=1234 (\n")]
fn messages_do_not_contain_the_pin(#[case] line: &str) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, SIGN_FILE);
    fixture.root.write("etc/dkms/framework.conf", format!("try_sign_modules=true\n{line}"));
    let machine = fixture.machine();
    let problems = machine.settings.problems().join("\n");
    assert!(problems.contains("line 2: ") && !problems.contains("1234"), "{problems}");
    let report = fixture.install();
    assert_eq!(report.warnings.len(), 1);
    assert!(!report.warnings[0].contains("1234"), "{:?}", report.warnings);
}

#[test]
fn pin_file_that_others_can_read_causes_a_warning() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, SIGN_FILE);
    fixture.root.write("etc/dkms/pin", "1234\n");
    fixture.root.write("etc/dkms/alpm-dkms.toml", "[signing]\npin_file = '/etc/dkms/pin'\n");
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(fixture.root.at("etc/dkms/pin"), mode).unwrap();
    let report = fixture.install();
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.contains("mode 0640\n  run: chmod 600 "), "{warning}");
    assert!(signature(&fixture).is_some());
}
