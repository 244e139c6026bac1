//! Successful preflight builds are not repeated, and the package files are found for every way of
//! calling pacman.

use rstest::rstest;
use stories::{Completed, PackageFile, Recipe, Root, find};

use crate::fixture::{assert_status, installed, kernel, release};
use crate::preflight_fixture::{machine, next_release};
use crate::preflight_interruptions::scratch;

/// The file with one line for each call of the compiler after the preflight.
const COMPILED: &str = "srv/compiled";

/// Makes the compiler record its calls, but forget those of a preflight.
fn record_compiler(root: &Root) {
    root.shell(
        "cc1=$(gcc -print-prog-name=cc1) && mv $cc1 $cc1.real && \
         printf '#!/bin/sh\necho \"$*\" >>/srv/compiled\nexec %s.real \"$@\"\n' $cc1 >$cc1 && \
         chmod 755 $cc1",
    )
    .ok();
    root.write(
        "etc/pacman.d/hooks/04-zz-forget.hook",
        "[Trigger]\nType = Package\nOperation = Install\nOperation = Upgrade\nTarget = *\n\
         [Action]\nWhen = PreTransaction\nExec = /usr/bin/rm -f /srv/compiled\n",
    );
}

/// Asserts that nothing was compiled after the preflight, in a transaction with this output.
#[track_caller]
fn assert_built_before(root: &Root, transaction: &Completed) {
    let calls = if root.exists(COMPILED) { root.read(COMPILED).lines().count() } else { 0 };
    assert_eq!(
        calls, 0,
        "calls of the compiler after the preflight; output:\n{}",
        transaction.text
    );
}

#[test]
fn an_upgrade_of_the_kernel_uses_the_builds_of_the_preflight() {
    let root = machine(&[find("bbswitch"), find("tp_smapi")]);
    record_compiler(&root);
    let upgrade = root.install(&kernel("linux", 2)).hooks_succeed();
    let upgrade = upgrade.has(&format!("2 modules built for {}", next_release()));
    assert_built_before(&root, &upgrade);
    for module in ["bbswitch", "tp_smapi"] {
        root.assert_works(&next_release(), module);
    }
    assert_eq!(scratch(&root), [""; 0]);
    root.assert_settled();
}

/// A module alone, a kernel together with a module, and a second kernel.
#[rstest]
#[case::module(&["bbswitch-next"], "1 module built for 7.2.12-arch1-1")]
#[case::both(&["linux-2", "linux-headers-2", "bbswitch-next"], "1 module built for 7.2.13-arch1-1")]
#[case::second_kernel(
    &["linux-lts-1", "linux-lts-headers-1"],
    "1 module built for 6.12.117-1-lts"
)]
fn other_transactions_use_them_too(#[case] packages: &[&str], #[case] line: &str) {
    let root = machine(&[find("bbswitch")]);
    record_compiler(&root);
    let packages: Vec<PackageFile> = packages.iter().map(|alias| find(alias)).collect();
    let transaction = root.install(&packages).hooks_succeed().has(line);
    assert_built_before(&root, &transaction);
    root.assert_settled();
}

#[rstest]
#[case::with_a_module(&["linux-headers-1", "bbswitch"])]
#[case::alone(&["linux-headers-1"])]
fn modules_are_built_with_new_headers_of_an_installed_kernel(#[case] packages: &[&str]) {
    let root = Root::with_preflight();
    root.install(&[find("linux-1")]);
    if !packages.contains(&"bbswitch") {
        root.install(&[find("bbswitch")]).has("no kernel headers installed");
    }
    record_compiler(&root);
    let packages: Vec<PackageFile> = packages.iter().map(|alias| find(alias)).collect();
    let transaction = root.install(&packages).hooks_succeed();
    let transaction = transaction.has(&format!("1 module built for {}", release()));
    assert_built_before(&root, &transaction);
    root.assert_settled();
}

#[test]
fn a_module_that_another_package_replaces_is_tried_in_its_place() {
    let old = Recipe::module("one", "1.0");
    let root = machine(&[]);
    root.install(&[old.make(&root)]).hooks_succeed();
    let new = Recipe::module("one", "2.0").package("one-git").replacing("one-dkms").make(&root);
    record_compiler(&root);
    let replaced = root.install_replacing(&[new]).hooks_succeed();
    let replaced = replaced.has(&format!("1 module built for {}", release()));
    assert_built_before(&root, &replaced);
    assert_status(&root, &[installed("one/2.0", &release())]);
}

#[test]
fn reinstalled_packages_need_no_build() {
    let root = machine(&[find("bbswitch")]);
    record_compiler(&root);
    let again = root.install(&[&kernel("linux", 1)[..], &[find("bbswitch")]].concat());
    let again = again.hooks_succeed().lacks("not test-built").lacks("module built for");
    assert_built_before(&root, &again);
    root.assert_settled();
}

/// The same packages, named by relative paths, in another cache directory, from a repository, or as
/// AUR helpers call pacman.
#[rstest]
#[case::relative(
    "cd /srv/kernels && pacman --noconfirm -U linux-2.pkg.tar.zst ./linux-headers-2.pkg.tar.zst"
)]
#[case::helper(
    "pacman -U --config /etc/pacman.conf --noconfirm -- /srv/kernels/linux-2.pkg.tar.zst \
     /srv/kernels/linux-headers-2.pkg.tar.zst"
)]
#[case::repository("pacman -Syu --noconfirm")]
#[case::cache("mkdir /srv/cache && pacman -Syu --noconfirm --cachedir /srv/cache")]
#[case::url(
    "pacman --noconfirm -U file:///srv/kernels/linux-2.pkg.tar.zst \
     file:///srv/kernels/linux-headers-2.pkg.tar.zst"
)]
fn packages_are_found_however_pacman_is_called(#[case] command: &str) {
    let root = machine(&[find("bbswitch")]);
    root.make_repository(&kernel("linux", 2));
    record_compiler(&root);
    let upgrade = root.shell(command).ok().hooks_succeed();
    let upgrade = upgrade.has(&format!("1 module built for {}", next_release()));
    assert_built_before(&root, &upgrade);
    root.assert_works(&next_release(), "bbswitch");
}

#[test]
fn objects_are_identical_to_those_built_after_the_transaction() {
    let root = machine(&[find("bbswitch"), find("v4l2loopback")]);
    root.write("etc/dkms/framework.conf", "try_sign_modules=true\n");
    root.dkms(&["generate_mok"]).ok();
    let without = root.fork();
    without.mask_preflight();
    without.install(&kernel("linux", 2)).hooks_succeed().lacks("modules built for");
    let object = |root: &Root, name: &str| {
        root.bytes(&format!("usr/lib/modules/{}/updates/dkms/{name}.ko.zst", next_release()))
    };
    let want = ["bbswitch", "v4l2loopback"].map(|name| object(&without, name));
    drop(without);
    record_compiler(&root);
    let upgrade = root.install(&kernel("linux", 2)).hooks_succeed().has("2 modules built for");
    assert_built_before(&root, &upgrade);
    assert_eq!(root.modinfo(&next_release(), "bbswitch", "signer"), "DKMS module signing key");
    assert!(["bbswitch", "v4l2loopback"].map(|name| object(&root, name)) == want);
}

/// A sign-file that accepts only the key of a token, with its PIN.
const SIGN_WITH_TOKEN: &str = r#"#!/bin/bash
[[ $2 == pkcs11:*[?]pin-source=file:* && $(cat "${2##*pin-source=file:}") == 4711 ]] || exit 1
exec /usr/lib/modules/*/build/scripts/sign-file "$1" /etc/dkms/token.key "$3" "$4"
"#;

#[test]
fn a_token_signs_in_the_preflight() {
    let root = Root::with_kernel();
    root.unmask_preflight();
    root.write("usr/local/bin/sign-with-token", SIGN_WITH_TOKEN);
    root.shell(
        "chmod 755 /usr/local/bin/sign-with-token && echo 4711 >/etc/dkms/pin && \
         openssl req -new -x509 -newkey rsa:2048 -nodes -days 9 -subj '/CN=a token' \
         -outform DER -keyout /etc/dkms/token.key -out /etc/dkms/token.der 2>&1",
    )
    .ok();
    root.write(
        "etc/dkms/framework.conf",
        "try_sign_modules=true\nsign_file=/usr/local/bin/sign-with-token\n\
         mok_signing_key='pkcs11:object=a'\nmok_certificate=/etc/dkms/token.der\n",
    );
    root.write("etc/dkms/alpm-dkms.toml", "[signing]\npin_file = \"/etc/dkms/pin\"\n");
    record_compiler(&root);
    let transaction = root.install(&[find("bbswitch")]).hooks_succeed().lacks("4711");
    assert_built_before(&root, &transaction.has("1 module built for "));
    assert_eq!(root.modinfo(&release(), "bbswitch", "signer"), "a token");
}

#[test]
fn headers_that_pacman_does_not_extract_are_not_tried() {
    let root = machine(&[find("bbswitch")]);
    let header = "usr/lib/modules/*/build/include/linux/arm-smccc.h";
    let conf = root.read("etc/pacman.conf");
    let conf = conf.replacen("[options]", &format!("[options]\nNoExtract = {header}"), 1);
    root.write("etc/pacman.conf", &conf);
    record_compiler(&root);
    let upgrade = root.install(&kernel("linux", 2)).hooks_succeed();
    assert_built_before(&root, &upgrade.has("1 module built for"));
}

#[test]
fn a_disabled_cache_keeps_builds_only_for_the_transaction() {
    let root = machine(&[find("bbswitch")]);
    root.write("etc/dkms/alpm-dkms.toml", "[cache]\nsize = 0\n");
    record_compiler(&root);
    let upgrade = root.install(&kernel("linux", 2)).hooks_succeed();
    assert_built_before(&root, &upgrade.has("1 module built for"));
    assert_eq!(root.names("var/lib/dkms/.cache/objects"), [""; 0]);
    root.assert_settled();
}
