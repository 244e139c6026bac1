//! Module signing, with the `sign-file` program of the kernel headers.

use stories::{Root, find};

use crate::fixture::{kernel, object, release};

/// Creates a machine with a module. `try_sign_modules=true` enables signing in the chroot.
fn signing_machine() -> Root {
    let root = Root::ready();
    root.write("etc/dkms/framework.conf", "try_sign_modules=true\n");
    root.install(&[&kernel("linux", 1)[..], &[find("bbswitch")]].concat()).hooks_succeed();
    root
}

/// Verifies the signature of the object against a certificate, as the kernel does.
#[track_caller]
fn assert_signed(root: &Root, certificate: &str) {
    let check = format!(
        r#"set -e; cd /tmp
        zstd -dcq /{object} >object
        length=$(tail -c 32 object | head -c 4 | od -An -tu1 | awk '{{ print (($1*256+$2)*256+$3)*256+$4 }}')
        head -c -$((length + 40)) object >content
        tail -c $((length + 40)) object | head -c "$length" >signature
        openssl x509 -inform DER -in {certificate} -out certificate.pem
        openssl cms -verify -binary -noverify -inform DER -in signature -content content \
            -certfile certificate.pem -nointern -out /dev/null"#,
        object = object(&release(), "bbswitch"),
    );
    root.shell(&check).ok();
}

/// Returns the serial number of the certificate that the object's signature names.
#[track_caller]
fn key(root: &Root) -> String {
    root.modinfo(&release(), "bbswitch", "sig_key")
}

#[test]
fn module_is_signed_with_a_generated_key() {
    let root = signing_machine();
    root.assert_works(&release(), "bbswitch");
    assert_eq!(root.modinfo(&release(), "bbswitch", "signer"), "DKMS module signing key");
    assert_eq!(root.modinfo(&release(), "bbswitch", "sig_hashalgo"), "sha256");
    let serial = "openssl x509 -inform DER -in /var/lib/dkms/mok.pub -noout -serial";
    let serial = root.shell(serial).ok().text.trim().replace("serial=", "");
    assert_eq!(key(&root).replace(':', ""), serial);
    assert_signed(&root, "/var/lib/dkms/mok.pub");
    assert_eq!(root.shell("stat -c %a /var/lib/dkms/mok.key").ok().text.trim(), "600");
    root.assert_settled();
}

#[test]
fn new_key_signs_again_without_compiling() {
    let root = signing_machine();
    let first = key(&root);
    root.shell(
        "openssl req -new -x509 -newkey rsa:2048 -nodes -days 9 -subj '/CN=the owner' \
         -outform DER -keyout /etc/dkms/own.key -out /etc/dkms/own.der 2>&1",
    )
    .ok();
    let paths = "mok_signing_key=/etc/dkms/own.key\nmok_certificate=/etc/dkms/own.der\n";
    root.write("etc/dkms/framework.conf", &format!("try_sign_modules=true\n{paths}"));
    let compilers = root.count_compilers();
    root.dkms(&["autoinstall", "-k", &release()]).ok();
    compilers.assert_none();
    assert_ne!(key(&root), first);
    assert_eq!(root.modinfo(&release(), "bbswitch", "signer"), "the owner");
    assert_signed(&root, "/etc/dkms/own.der");
    root.assert_settled();
}

#[test]
fn signing_failure_is_reported_and_the_module_installed() {
    let root = Root::ready();
    let settings =
        "try_sign_modules=true\nmok_signing_key='pkcs11:object=none'\nmok_certificate=/none\n";
    root.write("etc/dkms/framework.conf", settings);
    let output =
        root.install(&[&kernel("linux", 1)[..], &[find("bbswitch")]].concat()).hooks_succeed();
    output.has("not signed").has("pkcs11:object=none").has("Secure Boot");
    assert_eq!(root.modinfo(&release(), "bbswitch", "signer"), "");
    root.assert_works(&release(), "bbswitch");
    root.assert_settled();
}
