//! Tests of the PIN of the signing key.

use assert_cmd::Command;

use crate::fixture::{K1, call, root};

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
