//! Tests of unreadable settings, and of the PIN of the signing key.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use assert_cmd::Command;
use rstest::rstest;

use crate::fixture::{K1, call, dkms, dkms_obeying_modes, root};

#[rstest]
#[case::if_without_fi("framework.conf", "if true; then\n")]
#[case::open_quotation_mark("framework.conf.d/x.conf", "verbose=1\nmok_signing_key='/k\n")]
#[case::spaces("framework.conf.d/x.conf", "mok_signing_key = /k\n")]
fn every_command_reports_errors_in_the_settings(#[case] file: &str, #[case] text: &str) {
    let root = root();
    root.write(format!("etc/dkms/{file}"), text);
    let build = format!("install foo/1.0 -k {K1}");
    let commands = ["status", "add foo", &build, &build, "generate_mok", "cache"];
    for line in commands
        .into_iter()
        .chain([&format!("autoinstall --dry-run -k {K1}"), "remove foo/1.0 --all"])
    {
        let output = dkms(&root, line);
        let message = format!("dkms: warning: ROOT/etc/dkms/{file}: line ");
        assert_eq!(output.errors.matches(&message).count(), 1, "dkms {line}\n{}", output.errors);
        assert_eq!(output.code, i32::from(line == "generate_mok"), "{}", output.errors);
        assert!(!output.out.contains(file), "dkms {line}\n{}", output.out);
    }
    assert!(!root.exists("var/lib/dkms/mok.key"));
    assert_eq!(dkms(&root, "status -q").errors, "");
}

#[test]
fn unreadable_settings_are_reported() {
    let root = root();
    root.write("etc/dkms/framework.conf", "mok_signing_key=/k\n");
    let mode = fs::Permissions::from_mode(0o000);
    fs::set_permissions(root.at("etc/dkms/framework.conf"), mode).unwrap();
    let output = dkms_obeying_modes(&root, &format!("build foo/1.0 -k {K1}"));
    assert_eq!(output.code, 0, "{}", output.errors);
    let message = "dkms: warning: cannot read ROOT/etc/dkms/framework.conf: Permission denied";
    assert!(output.errors.starts_with(message), "{}", output.errors);
    let output = dkms_obeying_modes(&root, "generate_mok");
    assert_eq!(output.code, 1, "{}", output.errors);
    assert!(!root.exists("var/lib/dkms/mok.key"));
}

#[test]
fn passphrase_in_the_environment_reaches_only_sign_file() {
    let root = root();
    let config = "CONFIG_MODULES=y\nCONFIG_MODULE_SIG_HASH=\"sha256\"\n";
    let headers = format!("usr/lib/modules/{K1}/build");
    root.write(format!("{headers}/.config"), config);
    root.write(format!("{headers}/include/config/auto.conf"), config);
    let record = |name: &str| format!("env >>{}\n", root.at(name).display());
    root.executable(
        format!("{headers}/scripts/sign-file"),
        &format!("#!/bin/sh\n{}", record("signing")),
    );
    root.write("key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    root.write("certificate", "a certificate");
    let keys = "mok_signing_key=/key\nmok_certificate=/certificate\n";
    let settings = format!("try_sign_modules=true\n{keys}{}", record("settings"));
    root.write("etc/dkms/framework.conf", settings);
    let conf = format!(
        "{}PRE_BUILD=pre.sh\nPOST_INSTALL=post.sh\n",
        root.read("usr/src/foo-1.0/dkms.conf")
    );
    root.write("usr/src/foo-1.0/dkms.conf", format!("{conf}{}", record("conf")));
    root.executable("usr/src/foo-1.0/pre.sh", &format!("#!/bin/sh\n{}", record("pre")));
    root.executable("usr/src/foo-1.0/post.sh", &format!("#!/bin/sh\n{}", record("post")));
    let makefile = root.read("usr/src/foo-1.0/Makefile");
    root.write(
        "usr/src/foo-1.0/Makefile",
        format!("$(shell {})\n{makefile}", record("make").trim()),
    );

    let mut command = Command::cargo_bin("dkms").unwrap();
    command.env("KBUILD_SIGN_PIN", "secret-4711");
    let output = call(command, &root, &format!("install foo/1.0 -k {K1} --verbose"));
    assert_eq!(output.code, 0, "{}", output.errors);
    assert!(root.read("signing").contains("KBUILD_SIGN_PIN=secret-4711\n"));
    for name in ["settings", "conf", "pre", "make", "post"] {
        let seen = root.read(name);
        assert!(seen.contains("PATH=") && !seen.contains("secret-4711"), "{name}: {seen}");
    }
    assert!(!(output.out + &output.errors).contains("secret-4711"));
}
