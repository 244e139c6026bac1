//! Commands about a kernel with all its modules.

use crate::fixture::{K1, K2, dkms, ends, root};

#[test]
fn match_installs_what_another_kernel_has() {
    let root = root();
    root.source("bar", "2");
    let status = |kernel: &str| ends(&root, &format!("status -k {kernel}"), 0);
    ends(&root, &format!("match --templatekernel={K1} -k {K2}"), 0);
    ends(&root, &format!("install foo/1.0 -k {K1}"), 0);
    ends(&root, &format!("build bar/2 -k {K1}"), 0);
    ends(&root, &format!("match --templatekernel={K1} -k 7.2.14"), 21);
    ends(&root, &format!("match --templatekernel={K1} -k {K2} nothing"), 3);
    ends(&root, &format!("match --templatekernel={K1} -k {K2} bar"), 0);
    assert_eq!(status(K2), "bar/2: added\nfoo/1.0: added\n");
    ends(&root, &format!("match --templatekernel={K1} -k {K2}"), 0);
    assert_eq!(status(K2), format!("bar/2: added\nfoo/1.0, {K2}, x86_64: installed\n"));
    ends(&root, &format!("match --templatekernel={K1} -k {K2}"), 0);
}

#[test]
fn match_fails_with_the_module_that_fails() {
    let root = root();
    root.source("bad", "1").conf_line("BUILD_EXCLUSIVE_KERNEL=\"^7.2.12\"");
    ends(&root, &format!("install bad/1 -k {K1}"), 0);
    ends(&root, &format!("install foo/1.0 -k {K1}"), 0);
    ends(&root, &format!("match --templatekernel={K1} -k {K2}"), 77);
    assert!(root.exists(format!("usr/lib/modules/{K2}/updates/dkms/foo.ko")));
}

#[test]
fn a_kernel_that_is_replaced_gives_up_what_comes_back() {
    let root = root();
    root.source("manual", "1").conf_line("AUTOINSTALL=\"\"");
    ends(&root, &format!("install foo/1.0 -k {K1} -k {K2}"), 0);
    ends(&root, &format!("install manual/1 -k {K1}"), 0);
    ends(&root, &format!("kernel_preinst -k {K1}"), 0);
    assert_eq!(
        ends(&root, "status", 0),
        format!("foo/1.0, {K2}, x86_64: installed\nmanual/1, {K1}, x86_64: installed\n")
    );
    ends(&root, &format!("kernel_postinst --kernelver {K1}"), 0);
    assert!(root.exists(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko")));
    ends(&root, &format!("kernel_prerm -k {K1}"), 0);
    let left = format!("foo/1.0, {K2}, x86_64: installed\nmanual/1: added\n");
    assert_eq!(ends(&root, "status", 0), left);
    assert!(!root.listing(format!("usr/lib/modules/{K1}")).contains("foo.ko"));
    ends(&root, &format!("kernel_prerm -k {K1}"), 0);
}

#[test]
fn what_cannot_be_asked_for_a_new_kernel_fails_alone() {
    let root = root();
    root.source("bad", "1");
    ends(&root, &format!("install bad/1 -k {K1}"), 0);
    ends(&root, &format!("install foo/1.0 -k {K1}"), 0);
    root.source("bad", "1").conf("PACKAGE_NAME=bad\n");
    let said = dkms(&root, &format!("kernel_preinst -k {K1}"));
    assert_eq!(said.code, 14, "{}", said.errors);
    assert!(said.errors.contains("PACKAGE_VERSION"), "{}", said.errors);
    let left = format!("bad/1, {K1}, x86_64: installed\nfoo/1.0: added\n");
    assert_eq!(ends(&root, "status", 0), left);
}

#[test]
fn the_administrator_can_switch_autoinstall_off() {
    let root = root();
    ends(&root, "add foo/1.0", 0);
    root.write("etc/dkms/no-autoinstall", "");
    for command in ["autoinstall", "kernel_postinst"] {
        let said = ends(&root, &format!("{command} -k {K1}"), 0);
        assert!(said.contains("no-autoinstall"), "{said}");
    }
    assert_eq!(ends(&root, "status", 0), "foo/1.0: added\n");
}

/// A third kernel, without headers.
const K3: &str = "6.18.1-lts";

#[test]
fn all_kernels_with_headers_get_the_module() {
    let root = root();
    root.kernel(K3).pkgbase("linux-lts");
    root.write("usr/lib/modules/7.2.11-arch1-1/build/.config", "");
    let dry = ends(&root, "install foo/1.0 --all --dry-run", 0);
    assert!(dry.contains(&format!("install foo/1.0 for {K2}")), "{dry}");
    assert_eq!(ends(&root, "status", 0), "");
    let note = format!("note: {K3} (linux-lts) has no headers: install linux-lts-headers\n");
    let said = ends(&root, "build foo/1.0 --all", 0);
    assert_eq!(said.matches(&note).count(), 1, "{said}");
    let status =
        |state: &str| format!("foo/1.0, {K1}, x86_64: {state}\nfoo/1.0, {K2}, x86_64: {state}\n");
    assert_eq!(ends(&root, "status", 0), status("built"));
    ends(&root, "-m foo -v 1.0 install --all", 0);
    assert_eq!(ends(&root, "status", 0), status("installed"));
}

#[test]
fn autoinstall_for_all_kernels() {
    let root = root();
    root.source("only", "1").conf_line(&format!("BUILD_EXCLUSIVE_KERNEL=\"^{K1}\""));
    root.kernel(K3).pkgbase("linux-lts");
    for module in ["foo/1.0", "only/1"] {
        ends(&root, &format!("add {module}"), 0);
    }
    let said = ends(&root, "autoinstall --all", 0);
    assert!(said.contains(&format!("{K3} (linux-lts) has no headers")), "{said}");
    let installed = [("foo/1.0", K1), ("foo/1.0", K2), ("only/1", K1)]
        .map(|(module, kernel)| format!("{module}, {kernel}, x86_64: installed\n"));
    assert_eq!(ends(&root, "status", 0), installed.concat());
    // What the module is not for is no failure either.
    let said = ends(&root, "install only/1 --all", 0);
    assert!(said.contains(&format!("note: only/1 is not meant for {K2}")), "{said}");
    root.source("bad", "1").broken();
    ends(&root, "install bad/1 --all", 10);
    ends(&root, "autoinstall --all", 11);
}

#[test]
fn a_kernel_without_headers_names_those_that_have_some() {
    let root = root();
    root.kernel(K3).pkgbase("linux-lts");
    ends(&root, "add foo/1.0", 0);
    let said = dkms(&root, &format!("autoinstall -k {K3}"));
    assert_eq!(said.code, 21, "{}", said.errors);
    let advice = format!("{K1}, {K2} have headers; run: dkms autoinstall --all\n");
    assert!(said.errors.ends_with(&advice), "{}", said.errors);
    root.remove(format!("usr/lib/modules/{K1}/build"));
    // Without -k, on a machine whose running kernel is another one.
    let said = dkms(&root, "autoinstall");
    assert_eq!(said.code, 21, "{}", said.errors);
    let advice = format!("{K2} has headers; run: dkms autoinstall -k {K2}\n");
    assert!(said.errors.ends_with(&advice), "{}", said.errors);
    root.remove(format!("usr/lib/modules/{K2}/build"));
    let said = dkms(&root, "install foo/1.0 --all");
    assert_eq!((said.code, said.errors.matches("has no headers").count()), (21, 3));
}
