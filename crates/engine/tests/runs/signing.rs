//! Tests of signing objects and generating keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use dkms_engine::signing;
use rstest::rstest;

use crate::fixture::{BUILT, Fixture, K1, PLACED, assert_clean};

/// A fake `sign-file` that appends its arguments as a signature, in the format that the kernel
/// uses.
pub const SIGN_FILE: &str = r#"#!/bin/sh
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
pub fn sign_with(fixture: &Fixture, sign_file: &str) {
    let config = "CONFIG_MODULES=y\nCONFIG_MODULE_SIG_HASH=\"sha256\"\n";
    let build = format!("usr/lib/modules/{K1}/build");
    fixture.root.write(format!("{build}/.config"), config);
    fixture.root.write(format!("{build}/include/config/auto.conf"), config);
    fixture.root.executable(format!("{build}/scripts/sign-file"), sign_file);
    fixture.root.write("etc/dkms/framework.conf", "try_sign_modules=true\n");
}

/// Returns the signature of the installed object; `None` if it is not signed.
pub fn signature(fixture: &Fixture) -> Option<String> {
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
}

/// Signing fails at first, for example because a token is not plugged in.
#[rstest]
#[case::by_a_transaction(false)]
#[case::by_force(true)]
fn failed_signing_is_repeated(#[case] force: bool) {
    let mut fixture = Fixture::new();
    fixture.script("POST_INSTALL", "echo installed");
    sign_with(&fixture, "#!/bin/sh\necho no token >&2\nexit 1\n");
    assert_eq!(fixture.install().warnings.len(), 1);
    fixture.output.lines.clear();
    let report = fixture.sync(&[], &[K1]);
    assert!(report.is_clean() && report.warnings.len() == 1, "{:?}", report.warnings);
    assert_eq!(fixture.output.lines, [""; 0], "an unchanged module is not installed again");

    sign_with(&fixture, SIGN_FILE);
    fixture.change = match force {
        true => |machine| machine.options.force_install = true,
        false => |_| {},
    };
    assert_clean(&match force {
        true => fixture.install(),
        false => fixture.sync(&[], &[K1]),
    });
    assert!(signature(&fixture).is_some());
    assert_eq!(fixture.builds(), 1);
    fixture.change = |_| {};
    assert_eq!(fixture.sync(&[], &[K1]).finished.len(), 0);
}

#[test]
fn unsigned_build_of_dkms_is_signed() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, SIGN_FILE);
    fixture.root.write("etc/dkms/framework.conf", "try_sign_modules=false\n");
    assert_clean(&fixture.install());
    fixture.root.remove(format!("{BUILT}/alpm-dkms.toml"));
    fixture.root.write("etc/dkms/framework.conf", "try_sign_modules=true\n");
    for file in ["mok.key", "mok.pub"] {
        fixture.root.write(format!("var/lib/dkms/{file}"), "a key");
    }
    assert_clean(&fixture.sync(&[], &[]));
    assert_eq!(signature(&fixture), None);
    assert_clean(&fixture.sync(&[], &[K1]));
    assert!(signature(&fixture).is_some());
}

#[rstest]
#[case::appended("printf half >>\"$4\"; exit 1")]
#[case::written_beside("cp \"$4\" \"$4.~signed~\"; printf half >>\"$4.~signed~\"; exit 2")]
#[case::without_a_signature("printf half >>\"$4\"")]
#[case::killed("printf half >>\"$4\"; kill -9 $$")]
fn failed_signing_leaves_nothing_behind(#[case] script: &str) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.root.write("etc/dkms/framework.conf", "try_sign_modules=false\n");
    assert_clean(&fixture.install());
    let unsigned = fs::read(fixture.root.at(PLACED)).unwrap();

    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, &format!("#!/bin/sh\n{script}\n"));
    assert_eq!(fixture.install().warnings.len(), 1);
    assert_eq!(fs::read(fixture.root.at(PLACED)).unwrap(), unsigned);
    let kept = fixture.root.listing(format!("{BUILT}/module"));
    assert_eq!(kept.lines().count(), 2, "foo.ko and Module.symvers: {kept}");
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
    assert_eq!(fs::metadata(&mok.key).unwrap().permissions().mode() & 0o777, 0o600);
    let files = fixture.root.listing("var/lib/dkms");
    assert!(!signing::generate_mok(&machine, Some(&kernel)).unwrap().made);
    assert_eq!(fixture.root.listing("var/lib/dkms"), files);

    fixture.root.write(
        "etc/dkms/framework.conf",
        "mok_signing_key='pkcs11:object=x?pin-value=1234'\nmok_certificate=/none\n",
    );
    let failure = signing::generate_mok(&fixture.machine(), Some(&kernel)).unwrap_err();
    assert_eq!(failure.code, 1);
    assert!(failure.message.contains("pkcs11:object=x)"), "{}", failure.message);
}

/// The existing files of the key pair, the settings, and the path that the warning names.
#[rstest]
#[case::misspelt_key(
    &["root/MOK.priv", "root/MOK.der"],
    "mok_signing_key=/root/MOK.prv\nmok_certificate=/root/MOK.der",
    "root/MOK.prv"
)]
#[case::misspelt_certificate(
    &["root/MOK.priv", "root/MOK.der"],
    "mok_signing_key=/root/MOK.priv\nmok_certificate=/root/MOK.crt",
    "root/MOK.crt"
)]
#[case::both_missing(
    &["keys/other"],
    "mok_signing_key=/keys/a\nmok_certificate=/keys/b",
    "keys/a"
)]
#[case::only_the_certificate_is_named(
    &["root/MOK.der"],
    "mok_certificate=/root/MOK.der",
    "var/lib/dkms/mok.key"
)]
#[case::only_the_missing_key_is_named(
    &["keys/other", "var/lib/dkms/mok.pub"],
    "mok_signing_key=/keys/$kernelver",
    "keys/7.2.12-arch1-1"
)]
#[case::lost_default_certificate(&["var/lib/dkms/mok.key"], "", "var/lib/dkms/mok.pub")]
#[case::lost_default_key(&["var/lib/dkms/mok.pub"], "", "var/lib/dkms/mok.key")]
fn half_a_pair_and_named_files_are_never_completed(
    #[case] existing: &[&str],
    #[case] settings: &str,
    #[case] missing: &str,
) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, SIGN_FILE);
    fixture.root.write("etc/dkms/framework.conf", format!("try_sign_modules=true\n{settings}\n"));
    for file in existing {
        fixture.root.write(file, format!("the owner's {file}"));
    }
    let report = fixture.install();
    assert!(report.is_clean());
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.contains(&format!("{}/{missing}", fixture.root.path().display())), "{warning}");
    assert!(warning.contains("not found"), "{warning}");
    assert_eq!(signature(&fixture), None);
    assert_eq!(fixture.sync(&[], &[K1]).finished.len(), 0, "later transactions do not retry");

    let kernel = K1.parse().unwrap();
    let failure = signing::generate_mok(&fixture.machine(), Some(&kernel)).unwrap_err();
    assert_eq!(failure.code, 1);
    for file in existing {
        assert_eq!(fixture.root.read(file), format!("the owner's {file}"));
    }
    assert!(!fixture.root.exists(missing));
    for file in ["mok.key", "mok.pub"].map(|file| format!("var/lib/dkms/{file}")) {
        assert!(existing.contains(&file.as_str()) || !fixture.root.exists(&file), "{file}");
    }
}

#[test]
fn link_to_a_missing_key_is_not_replaced() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, SIGN_FILE);
    fixture.root.link("var/lib/dkms/mok.key", "/mnt/stick/mok.key");
    fixture.root.link("var/lib/dkms/mok.pub", "/mnt/stick/mok.pub");
    let report = fixture.install();
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.contains("cannot use the key"), "{warning}");
    assert!(fixture.root.at("var/lib/dkms/mok.key").is_symlink());
    assert_eq!(signature(&fixture), None);
}

/// The file of the settings, its text, and a part of the message about it.
#[rstest]
#[case::if_without_fi(
    "framework.conf",
    "if true; then\nmok_signing_key=/k\nmok_certificate=/c\n",
    "framework.conf: line "
)]
#[case::open_quotation_mark(
    "framework.conf.d/z.conf",
    "verbose=\nmok_signing_key=\"/k\nmok_certificate=/c\n",
    "framework.conf.d/z.conf: line 2: "
)]
#[case::unquoted_bracket(
    "framework.conf.d/a.conf",
    "mok_certificate=/c(1)\n",
    "framework.conf.d/a.conf: line 1: "
)]
#[case::not_text("framework.conf", "mok_signing_key=/k\0\n", "framework.conf: invalid")]
#[case::ends_the_shell("framework.conf", "exit 0\n", "framework.conf: evaluation ended early")]
fn no_key_is_made_while_settings_cannot_be_read(
    #[case] file: &str,
    #[case] text: &str,
    #[case] message: &str,
) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, SIGN_FILE);
    fixture.root.write("etc/dkms/framework.conf.d/b.conf", "try_sign_modules=true\n");
    fixture.root.write(format!("etc/dkms/{file}"), text);
    let machine = fixture.machine();
    let problems = machine.settings.problems();
    let [problem] = problems else { panic!("{problems:?}") };
    let message = format!("{}/etc/dkms/{message}", fixture.root.path().display());
    assert!(problem.starts_with(&message), "{problem}");
    let report = fixture.install();
    assert!(report.is_clean());
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.contains(&format!("/etc/dkms/{file}, which may name other keys")), "{warning}");
    assert_eq!(signature(&fixture), None);
    let kernel = K1.parse().unwrap();
    signing::generate_mok(&fixture.machine(), Some(&kernel)).unwrap_err();
    assert!(!fixture.root.exists("var/lib/dkms/mok.key"));

    fixture.root.write("k", "a key");
    fixture.root.write("c", "a certificate");
    fixture.root.write(format!("etc/dkms/{file}"), "mok_signing_key=/k\nmok_certificate=/c\n");
    assert_clean(&fixture.sync(&[], &[K1]));
    assert!(signature(&fixture).is_some());
    assert_eq!(fixture.builds(), 1, "signing does not compile");
}

#[rstest]
#[case::dangling_link("framework.conf")]
#[case::directory("framework.conf.d/own.conf")]
fn settings_that_are_not_a_file_prevent_a_new_key(#[case] file: &str) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, SIGN_FILE);
    let path = format!("etc/dkms/{file}");
    fixture.root.dir("etc/dkms/framework.conf.d");
    if file == "framework.conf" {
        fixture.root.remove(&path);
        fixture.root.link(&path, "/mnt/config/framework.conf");
    } else {
        fixture.root.dir(&path);
    }
    let machine = fixture.machine();
    let [problem] = machine.settings.problems() else { panic!() };
    assert!(problem.contains("cannot read") && problem.contains(&path), "{problem}");
    assert_eq!(fixture.install().warnings.len(), 1);
    assert!(!fixture.root.exists("var/lib/dkms/mok.key"));
}

#[rstest]
#[case::spaces("mok_signing_key = /k\n")]
#[case::failed_command("mok_signing_key=$(cat /keys/path)\n")]
fn no_key_is_made_after_an_error_in_the_settings(#[case] line: &str) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, SIGN_FILE);
    fixture.root.write("etc/dkms/framework.conf.d/k.conf", line);
    assert_eq!(fixture.machine().settings.problems().len(), 1);
    let report = fixture.install();
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.contains("not created because of errors in"), "{warning}");
    assert!(!fixture.root.exists("var/lib/dkms/mok.key"));

    // An existing key is used, since the error in the settings may concern something else.
    for file in ["mok.key", "mok.pub"] {
        fixture.root.write(format!("var/lib/dkms/{file}"), "a key");
    }
    assert_clean(&fixture.sync(&[], &[K1]));
    assert!(signature(&fixture).is_some());
    assert_eq!(fixture.builds(), 1);
}

#[test]
fn settings_can_be_masked_with_dev_null() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, SIGN_FILE);
    fixture.root.dir("etc/dkms/framework.conf.d");
    fixture.root.link("etc/dkms/framework.conf.d/a.conf", "/dev/null");
    assert_eq!(fixture.machine().settings.problems(), [""; 0]);
    assert_clean(&fixture.install());
    assert!(signature(&fixture).is_some());
}
