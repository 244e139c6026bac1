//! Tests of the commands on all modules of a kernel.

use crate::fixture::{K1, K2, dkms, root, run};

#[test]
fn match_installs_the_modules_of_another_kernel() {
    let root = root();
    root.source("bar", "2");
    let status = |kernel: &str| run(&root, &format!("status -k {kernel}"), 0);
    run(&root, &format!("match --templatekernel={K1} -k {K2}"), 0);
    run(&root, &format!("install foo/1.0 -k {K1}"), 0);
    run(&root, &format!("build bar/2 -k {K1}"), 0);
    run(&root, &format!("match --templatekernel={K1} -k 7.2.14"), 21);
    run(&root, &format!("match --templatekernel={K1} -k {K2} nothing"), 3);
    run(&root, &format!("match --templatekernel={K1} -k {K2} bar"), 0);
    assert_eq!(status(K2), "bar/2: added\nfoo/1.0: added\n");
    run(&root, &format!("match --templatekernel={K1} -k {K2}"), 0);
    assert_eq!(status(K2), format!("bar/2: added\nfoo/1.0, {K2}, x86_64: installed\n"));
    run(&root, &format!("match --templatekernel={K1} -k {K2}"), 0);
}

#[test]
fn match_fails_if_one_module_fails() {
    let root = root();
    root.source("bad", "1").conf_line("BUILD_EXCLUSIVE_KERNEL=\"^7.2.12\"");
    run(&root, &format!("install bad/1 -k {K1}"), 0);
    run(&root, &format!("install foo/1.0 -k {K1}"), 0);
    run(&root, &format!("match --templatekernel={K1} -k {K2}"), 77);
    assert!(root.exists(format!("usr/lib/modules/{K2}/updates/dkms/foo.ko")));
}

#[test]
fn kernel_preinst_keeps_builds_without_autoinstall() {
    let root = root();
    root.source("manual", "1").conf_line("AUTOINSTALL=\"\"");
    run(&root, &format!("install foo/1.0 -k {K1} -k {K2}"), 0);
    run(&root, &format!("install manual/1 -k {K1}"), 0);
    run(&root, &format!("kernel_preinst -k {K1}"), 0);
    assert_eq!(
        run(&root, "status", 0),
        format!("foo/1.0, {K2}, x86_64: installed\nmanual/1, {K1}, x86_64: installed\n")
    );
    run(&root, &format!("kernel_postinst --kernelver {K1}"), 0);
    assert!(root.exists(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko")));
    run(&root, &format!("kernel_prerm -k {K1}"), 0);
    let left = format!("foo/1.0, {K2}, x86_64: installed\nmanual/1: added\n");
    assert_eq!(run(&root, "status", 0), left);
    assert!(!root.listing(format!("usr/lib/modules/{K1}")).contains("foo.ko"));
    run(&root, &format!("kernel_prerm -k {K1}"), 0);
}

#[test]
fn kernel_preinst_fails_only_for_a_module_with_a_bad_conf() {
    let root = root();
    root.source("bad", "1");
    run(&root, &format!("install bad/1 -k {K1}"), 0);
    run(&root, &format!("install foo/1.0 -k {K1}"), 0);
    root.source("bad", "1").conf("PACKAGE_NAME=bad\n");
    let output = dkms(&root, &format!("kernel_preinst -k {K1}"));
    assert_eq!(output.code, 14, "{}", output.errors);
    assert!(output.errors.contains("PACKAGE_VERSION"), "{}", output.errors);
    let left = format!("bad/1, {K1}, x86_64: installed\nfoo/1.0: added\n");
    assert_eq!(run(&root, "status", 0), left);
}

#[test]
fn the_file_no_autoinstall_disables_autoinstall() {
    let root = root();
    run(&root, "add foo/1.0", 0);
    root.write("etc/dkms/no-autoinstall", "");
    for command in ["autoinstall", "kernel_postinst"] {
        let output = run(&root, &format!("{command} -k {K1}"), 0);
        assert!(output.contains("no-autoinstall"), "{output}");
    }
    assert_eq!(run(&root, "status", 0), "foo/1.0: added\n");
}

/// A third kernel, without headers.
const K3: &str = "6.18.1-lts";

#[test]
fn all_covers_kernels_with_headers() {
    let root = root();
    root.kernel(K3).pkgbase("linux-lts");
    root.write("usr/lib/modules/7.2.11-arch1-1/build/.config", "");
    let dry = run(&root, "install foo/1.0 --all --dry-run", 0);
    assert!(dry.contains(&format!("install foo/1.0 for {K2}")), "{dry}");
    assert_eq!(run(&root, "status", 0), "");
    let note =
        format!("note: {K3}: no kernel headers installed\n  run: pacman -S linux-lts-headers\n");
    let output = run(&root, "build foo/1.0 --all", 0);
    assert_eq!(output.matches(&note).count(), 1, "{output}");
    let status =
        |state: &str| format!("foo/1.0, {K1}, x86_64: {state}\nfoo/1.0, {K2}, x86_64: {state}\n");
    assert_eq!(run(&root, "status", 0), status("built"));
    run(&root, "-m foo -v 1.0 install --all", 0);
    assert_eq!(run(&root, "status", 0), status("installed"));
}

#[test]
fn autoinstall_covers_all_kernels() {
    let root = root();
    root.source("only", "1").conf_line(&format!("BUILD_EXCLUSIVE_KERNEL=\"^{K1}\""));
    root.kernel(K3).pkgbase("linux-lts");
    for module in ["foo/1.0", "only/1"] {
        run(&root, &format!("add {module}"), 0);
    }
    let output = run(&root, "autoinstall --all", 0);
    assert!(output.contains(&format!("{K3}: no kernel headers installed")), "{output}");
    let installed = [("foo/1.0", K1), ("foo/1.0", K2), ("only/1", K1)]
        .map(|(module, kernel)| format!("{module}, {kernel}, x86_64: installed\n"));
    assert_eq!(run(&root, "status", 0), installed.concat());
    // A kernel that the module does not support is not a failure either.
    let output = run(&root, "install only/1 --all", 0);
    assert!(output.contains(&format!("note: only/1: skipped for {K2}: ")), "{output}");
    root.source("bad", "1").broken();
    run(&root, "install bad/1 --all", 10);
    run(&root, "autoinstall --all", 11);
}

#[test]
fn missing_headers_name_kernels_that_have_headers() {
    let root = root();
    root.kernel(K3).pkgbase("linux-lts");
    run(&root, "add foo/1.0", 0);
    let output = dkms(&root, &format!("autoinstall -k {K3}"));
    assert_eq!(output.code, 21, "{}", output.errors);
    let advice = format!("headers are installed for {K1}, {K2}\n  run: dkms autoinstall --all\n");
    assert!(output.errors.ends_with(&advice), "{}", output.errors);
    root.remove(format!("usr/lib/modules/{K1}/build"));
    // Without -k, the command works on the running kernel, which the root does not contain.
    let output = dkms(&root, "autoinstall");
    assert_eq!(output.code, 21, "{}", output.errors);
    let advice = format!(
        ": the running kernel is not in /usr/lib/modules (installed: {K3}, {K1}, {K2})\n  \
         headers are installed for {K2}\n  run: dkms autoinstall -k {K2}\n"
    );
    assert!(output.errors.ends_with(&advice), "{}", output.errors);
    root.remove(format!("usr/lib/modules/{K2}/build"));
    let output = dkms(&root, "install foo/1.0 --all");
    assert_eq!(
        (output.code, output.errors.matches("no kernel headers installed").count()),
        (21, 3)
    );
}

#[test]
fn a_kernel_that_does_not_exist_is_named() {
    let root = root();
    for line in ["install foo/1.0 -k 7.2.99", "build foo/1.0 -k 7.2.12-arch1"] {
        let output = dkms(&root, line);
        let name = line.rsplit(' ').next().unwrap();
        let want = format!(
            "dkms: error: foo/1.0 for {name}: no such kernel in /usr/lib/modules (installed: {K1}, {K2})\n"
        );
        assert_eq!((output.code, output.errors), (21, want));
    }
    root.remove(format!("usr/lib/modules/{K2}/build"));
    for target in ["/usr/src/linux-7.2", "../7.2.13/build"] {
        root.link(format!("usr/lib/modules/{K2}/build"), target);
        let output = dkms(&root, &format!("install foo/1.0 -k {K2}"));
        let want = format!(
            "build leads to {target}, which does not exist\n  run: pacman -S linux-headers\n"
        );
        assert!(output.code == 21 && output.errors.ends_with(&want), "{}", output.errors);
        root.remove(format!("usr/lib/modules/{K2}/build"));
    }
}

#[test]
fn autoinstall_for_one_kernel_ignores_pending_work_for_another() {
    let root = root();
    // The first module can be built only for K1, the second one only for K2.
    let make = format!("MAKE='[ $kernelver = {K1} ] && make -C $kernel_source_dir M=$PWD'");
    root.source("one", "1").conf_line(&make);
    root.source("two", "1")
        .conf_line("MAKE='no-such-program'")
        .conf_line(&format!("BUILD_EXCLUSIVE_KERNEL=\"^{K2}\""));
    run(&root, "add one/1", 0);
    run(&root, "add two/1", 0);
    // A program is missing, so this work stays pending.
    run(&root, &format!("autoinstall -k {K2}"), 11);
    let pending = root.listing("var/lib/dkms/.pending");
    assert!(pending.contains("two_1"), "{pending}");
    let output = run(&root, &format!("autoinstall -k {K1}"), 0);
    assert!(!output.contains(&format!(" for {K2}")), "{output}");
    let status = format!("one/1, {K1}, x86_64: installed\ntwo/1: added\n");
    assert_eq!(run(&root, "status", 0), status);
    assert_eq!(root.listing("var/lib/dkms/.pending"), pending);
    // All pending work is finished without -k.
    let output = dkms(&root, "autoinstall");
    assert!(output.errors.contains(&format!("two/1 for {K2}")), "{}", output.errors);
}

#[test]
fn autoinstall_reports_modules_with_a_refused_conf() {
    let root = root();
    root.source("bad", "1").conf("PACKAGE_NAME=bad\nPACKAGE_VERSION=1\nBUILT_MODULE_NAME=x.ko\n");
    root.source("empty", "2").conf("");
    let output = run(&root, &format!("autoinstall -k {K1}"), 0);
    assert_eq!(output.matches("note: ").count(), 2, "{output}");
    assert!(output.contains("note: bad/1: not added: ") && output.contains("empty/2"), "{output}");
    // foo/1.0 is not added either, but could be.
    assert!(!output.contains("foo"), "{output}");
}

#[test]
fn a_failed_build_runs_no_depmod() {
    let root = root();
    root.source("bad", "1").broken();
    root.source("worse", "1").conf_line("MAKE=false");
    for module in ["bad/1", "worse/1"] {
        let output = run(&root, &format!("install {module} -k {K1}"), 10);
        assert!(!output.contains("skipped: "), "said twice: {output}");
        assert!(!root.exists(format!("usr/lib/modules/{K1}/modules.dep")), "{module}");
    }
    run(&root, &format!("install foo/1.0 -k {K1}"), 0);
    assert!(root.exists(format!("usr/lib/modules/{K1}/modules.dep")));
}
