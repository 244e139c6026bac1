//! The commands on one module, and status.

use crate::fixture::{K1, K2, dkms, ends, root};

#[test]
fn goes_up_and_down_the_states() {
    let root = root();
    let status = |want: &str| assert_eq!(ends(&root, "status", 0), want);
    status("");
    ends(&root, "add foo/1.0", 0);
    status("foo/1.0: added\n");
    ends(&root, &format!("build -m foo -v 1.0 -k {K1}"), 0);
    status(&format!("foo/1.0, {K1}, x86_64: built\n"));
    ends(&root, &format!("install foo/1.0 -k {K1} -k {K2}"), 0);
    status(&format!("foo/1.0, {K1}, x86_64: installed\nfoo/1.0, {K2}, x86_64: installed\n"));
    assert!(root.exists(format!("usr/lib/modules/{K2}/updates/dkms/foo.ko")));
    ends(&root, &format!("uninstall foo/1.0 -k {K1}"), 0);
    ends(&root, &format!("-k {K2} unbuild foo/1.0"), 0);
    status(&format!("foo/1.0, {K1}, x86_64: built\n"));
    ends(&root, "remove foo/1.0 --all", 0);
    status("");
    assert!(!root.listing("usr/lib/modules").contains("foo.ko"), "{}", root.listing("usr"));
}

#[test]
fn lists_what_is_asked_for() {
    let root = root();
    root.source("bar", "2");
    ends(&root, &format!("install foo/1.0 -k {K1}"), 0);
    ends(&root, "add bar/2", 0);
    let installed = format!("foo/1.0, {K1}, x86_64: installed\n");
    assert_eq!(ends(&root, "status", 0), format!("bar/2: added\n{installed}"));
    assert_eq!(ends(&root, "status foo", 0), installed);
    assert_eq!(ends(&root, "status -m f* -v 1.0", 0), installed);
    assert_eq!(ends(&root, "status foo/2", 0), "");
    assert_eq!(ends(&root, &format!("status -k {K2} -m foo"), 0), "foo/1.0: added\n");
    let twice = format!("{installed}foo/1.0: added\n");
    assert_eq!(ends(&root, &format!("status foo -k {K1} -k {K2}"), 0), twice);
}

#[test]
fn shows_what_is_not_as_it_was_built() {
    let root = root();
    ends(&root, &format!("install foo/1.0 -k {K1}"), 0);
    root.dir(format!("var/lib/dkms/foo/original_module/{K1}/x86_64"));
    root.write(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko"), "something else");
    assert_eq!(
        ends(&root, "status", 0),
        format!(
            "foo/1.0, {K1}, x86_64: installed (Original modules exist) \
             (Differences between built and installed modules)\n"
        )
    );
    root.remove(format!("var/lib/dkms/foo/1.0/{K1}/x86_64/module/foo.ko"));
    assert_eq!(
        ends(&root, "status", 0),
        format!(
            "foo/1.0, {K1}, x86_64: installed (Original modules exist) \
             (Built modules are missing in the kernel modules folder)\n"
        )
    );
}

#[test]
fn says_what_is_broken() {
    let root = root();
    root.link("var/lib/dkms/gone/1/source", root.at("usr/src/gone-1"));
    let said = dkms(&root, "status");
    assert_eq!((said.code, said.out.as_str()), (0, "gone/1: broken\n"));
    assert!(
        said.errors.starts_with("dkms: warning: gone/1: its source is missing"),
        "{}",
        said.errors
    );
    ends(&root, "build gone/1", 4);
}

#[test]
fn tells_failures_in_json() {
    let root = root();
    root.source("bad", "1").broken();
    ends(&root, &format!("build bad/1 -k {K1}"), 10);
    let rows: serde_json::Value = serde_json::from_str(&ends(&root, "status --json", 0)).unwrap();
    let states: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["state"].clone()).collect();
    assert_eq!(states, ["added", "failed"]);
    assert_eq!(rows[1]["kernel"], K1);
    assert!(rows[1]["failure"].as_str().unwrap().contains("too new"), "{rows}");
}

#[test]
fn ends_with_dkms_s_codes() {
    let root = root();
    root.source("none", "1").conf("PACKAGE_NAME=none\n");
    root.source("other", "1").conf_line("BUILD_EXCLUSIVE_KERNEL=\"^9\"");
    root.kernel("7.2.14-arch1-1").pkgbase("linux");
    for (line, code) in [
        ("add nothing/1", 2),
        ("add none/1", 8),
        ("add foo/1.0", 0),
        ("add foo/1.0", 3),
        ("build foo/1.0 -k 7.2.14-arch1-1", 21),
        ("build foo/1.0 -k 7.2.99", 21),
        ("build other/1 -k 7.2.12-arch1-1", 77),
        ("remove nothing/1 --all", 3),
        ("uninstall foo", 1),
        ("frobnicate", 2),
        ("match", 1),
        ("build foo/1.0 -k 7.2.12-arch1-1", 0),
        ("build foo/1.0 -k 7.2.12-arch1-1", 0),
        ("autoinstall -k 7.2.12-arch1-1", 0),
        ("autoinstall -k 7.2.99", 21),
    ] {
        ends(&root, line, code);
    }
}

#[test]
fn installs_all_that_is_willing() {
    let root = root();
    root.source("bad", "1").broken();
    ends(&root, "add foo/1.0", 0);
    ends(&root, "add bad/1", 0);
    let said = dkms(&root, &format!("autoinstall -k {K1}"));
    assert_eq!(said.code, 11, "{}{}", said.out, said.errors);
    assert!(said.errors.contains("cannot build bad/1"), "{}", said.errors);
    assert!(root.exists(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko")));
}

#[test]
fn a_dry_run_changes_nothing() {
    let root = root();
    let before = root.listing("");
    let said = ends(&root, &format!("install foo/1.0 -k {K1} --dry-run"), 0);
    assert!(said.contains(&format!("build foo/1.0 for {K1}")), "{said}");
    let caches = |line: &&str| !line.contains("/.cache") && !line.contains("/.bin");
    let after = root.listing("");
    assert_eq!(
        after.lines().filter(caches).collect::<Vec<_>>(),
        before.lines().collect::<Vec<_>>()
    );
}

#[test]
fn reading_changes_nothing() {
    let root = root();
    let before = root.listing("");
    ends(&root, "status", 0);
    ends(&root, "status --json", 0);
    assert_eq!(root.listing(""), before);
}

#[test]
fn prints_what_scripts_parse() {
    let root = root();
    assert_eq!(ends(&root, "--version", 0), "dkms-3.4.3\n");
    assert_eq!(ends(&root, "-V", 0), "dkms-3.4.3\n");
    assert!(ends(&root, "--help", 0).contains("autoinstall"));
    assert!(dkms(&root, "--frobnicate").errors.contains("--frobnicate"));
    ends(&root, "--frobnicate", 2);
    let quiet = dkms(&root, "-q remove nothing/1 --all");
    assert_eq!((quiet.code, quiet.out + &quiet.errors), (3, String::new()));
}

#[test]
fn finishes_pending_work() {
    let root = root();
    ends(&root, "autoinstall --pending", 0);
    assert_eq!(ends(&root, "status", 0), "");
}

#[test]
fn makes_the_key_to_sign_with_once() {
    let root = root();
    let certificate = "ROOT/var/lib/dkms/mok.pub";
    let dry = ends(&root, "generate_mok --dry-run", 0);
    assert!(dry.contains("if it does not exist"), "{dry}");
    assert!(!root.exists("var/lib/dkms/mok.key"));
    let made = ends(&root, "generate_mok", 0);
    assert!(made.starts_with("Made the key ROOT/var/lib/dkms/mok.key"), "{made}");
    assert!(made.contains(&format!("mokutil --import {certificate}")), "{made}");
    let key = root.read("var/lib/dkms/mok.key");
    let again = ends(&root, "generate_mok", 0);
    assert!(again.starts_with("There is already the key"), "{again}");
    assert_eq!(ends(&root, "generate_mok -q", 0), "");
    assert_eq!(root.read("var/lib/dkms/mok.key"), key);
}

#[test]
fn a_key_may_have_the_kernel_in_its_path() {
    let root = root();
    let paths =
        "mok_signing_key=/keys/$kernelver/key\nmok_certificate=/keys/$kernelver/certificate\n";
    root.write("etc/dkms/framework.conf", paths);
    root.dir(format!("keys/{K1}"));
    ends(&root, &format!("generate_mok -k {K1}"), 0);
    assert!(root.exists(format!("keys/{K1}/key")) && root.exists(format!("keys/{K1}/certificate")));
    // The directories are not made, as with dkms.
    let said = dkms(&root, &format!("generate_mok -k {K2}"));
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{}", said.errors);
    assert!(said.errors.contains(&format!("ROOT/keys/{K2}/key")), "{}", said.errors);
    assert!(!root.exists(format!("keys/{K2}")));
}

#[test]
fn a_name_is_enough_for_the_only_version() {
    let root = root();
    ends(&root, "add foo", 0);
    ends(&root, "add foo", 3);
    ends(&root, &format!("build -m foo -k {K1}"), 0);
    ends(&root, &format!("install foo -k {K2}"), 0);
    ends(&root, "build foo --all", 0);
    let installed = format!("foo/1.0, {K1}, x86_64: built\nfoo/1.0, {K2}, x86_64: installed\n");
    assert_eq!(ends(&root, "status", 0), installed);
    // An empty value is no missing one, and a name alone takes nothing away.
    ends(&root, "install -v", 1);
    for line in ["uninstall foo", "unbuild foo", "remove foo --all", "mktarball foo"] {
        ends(&root, line, 1);
    }
    root.source("foo", "1.10");
    root.source("foo", "1.9");
    let said = dkms(&root, "install foo");
    assert_eq!(said.code, 1);
    let list = "dkms: error: foo: more than one version: foo/1.0, foo/1.9, foo/1.10\n  run: dkms install foo/VERSION\n";
    assert_eq!(said.errors, list);
    let said = dkms(&root, "add bar");
    assert_eq!(said.code, 1);
    assert!(said.errors.contains("no source in ROOT/usr/src/bar-VERSION"), "{}", said.errors);
    assert_eq!(ends(&root, "status", 0), installed);
}

#[test]
fn a_checkout_is_meant_before_a_version() {
    let root = root();
    ends(&root, "add foo", 0);
    root.write("foo", "");
    ends(&root, "add foo", 3);
    root.remove("foo");
    let conf = root.read("usr/src/foo-1.0/dkms.conf").replace("1.0", "2.0");
    root.write("foo/dkms.conf", conf);
    ends(&root, "add foo", 0);
    assert_eq!(ends(&root, "status", 0), "foo/1.0: added\nfoo/2.0: added\n");
}

#[test]
fn a_mistyped_word_gets_the_nearest_name() {
    let root = root();
    for (line, code, errors) in [
        ("isntall foo/1.0", 2, "unknown command: isntall\n  did you mean install?"),
        ("frobnicate", 2, "unknown command: frobnicate\n  see: dkms --help"),
        ("", 2, "no command given (expected: dkms COMMAND)\n  see: dkms --help"),
        ("install foo/1.0 --forse", 2, "unknown option: --forse\n  did you mean --force?"),
        ("install foo/1.0 -j4", 2, "unknown option: -j4\n  did you mean -j 4?"),
        ("install --frobnicate", 2, "unknown option: --frobnicate\n  see: dkms install --help"),
        ("remove foo", 1, "foo: no version given (expected: dkms remove foo/VERSION)"),
        ("remove", 1, "remove: no module given (expected: dkms remove MODULE/VERSION)"),
        ("build foo/1.0 -j x", 2, "invalid value for -j: \"x\" (expected a number)"),
        ("add build", 4, "unexpected command: build: add was given before (expected one command)"),
    ] {
        let said = dkms(&root, line);
        assert_eq!((said.code, said.errors), (code, format!("dkms: error: {errors}\n")), "{line}");
    }
}

#[test]
fn helps_with_one_command() {
    let root = root();
    let help = ends(&root, "mktarball --help --frobnicate", 0);
    assert!(help.contains("Usage: dkms mktarball MODULE/VERSION [OPTIONS]"), "{help}");
    assert!(help.contains("--source-only") && !help.contains("--timings"), "{help}");
    // As with dkms, what follows is not read.
    assert_eq!(ends(&root, "--help mktarball", 0), ends(&root, "-h", 0));
    assert_eq!(ends(&root, "-q mktarball --help", 0), "");
}

#[test]
fn a_dry_run_keeps_archives_and_the_cache() {
    let root = root();
    ends(&root, &format!("build foo/1.0 -k {K1}"), 0);
    let said = ends(&root, &format!("mktarball foo/1.0 -k {K1} --dry-run"), 0);
    assert_eq!(said, "would write an archive of foo/1.0\n");
    ends(&root, &format!("mktarball foo/1.0 -k {K2} --dry-run"), 6);
    assert!(!root.exists("var/lib/dkms/foo/1.0/tarball"));
    ends(&root, "remove foo/1.0 --all", 0);
    let listed = ends(&root, "cache", 0);
    assert_eq!(ends(&root, "cache clear --dry-run", 0), "would delete 1 build\n");
    assert_eq!(ends(&root, "cache", 0), listed);
    assert_eq!(ends(&root, "cache clear", 0), "deleted 1 build\n");
}

#[test]
fn a_deprecated_directive_is_named() {
    let root = root();
    root.source("foo", "1.0").conf_line("CLEAN=\"make clean\"");
    let said = dkms(&root, &format!("build foo/1.0 -k {K1}"));
    assert_eq!(said.code, 0, "{}", said.errors);
    let warning = "dkms: warning: CLEAN is deprecated: it is set in ";
    assert!(said.errors.starts_with(warning), "{}", said.errors);
}
