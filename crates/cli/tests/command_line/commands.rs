//! Tests of the commands on a single module, and of `status`, `cache` and `generate_mok`.

use crate::fixture::{K1, K2, dkms, dkms_through, root, run};

#[test]
fn a_module_passes_through_all_states() {
    let root = root();
    let status = |want: &str| assert_eq!(run(&root, "status", 0), want);
    status("");
    run(&root, "add foo/1.0", 0);
    status("foo/1.0: added\n");
    run(&root, &format!("build -m foo -v 1.0 -k {K1}"), 0);
    status(&format!("foo/1.0, {K1}, x86_64: built\n"));
    run(&root, &format!("install foo/1.0 -k {K1} -k {K2}"), 0);
    status(&format!("foo/1.0, {K1}, x86_64: installed\nfoo/1.0, {K2}, x86_64: installed\n"));
    assert!(root.exists(format!("usr/lib/modules/{K2}/updates/dkms/foo.ko")));
    run(&root, &format!("uninstall foo/1.0 -k {K1}"), 0);
    run(&root, &format!("-k {K2} unbuild foo/1.0"), 0);
    status(&format!("foo/1.0, {K1}, x86_64: built\n"));
    run(&root, "remove foo/1.0 --all", 0);
    status("");
    assert!(!root.listing("usr/lib/modules").contains("foo.ko"), "{}", root.listing("usr"));
}

#[test]
fn status_filters_its_lines() {
    let root = root();
    root.source("bar", "2");
    run(&root, &format!("install foo/1.0 -k {K1}"), 0);
    run(&root, "add bar/2", 0);
    let installed = format!("foo/1.0, {K1}, x86_64: installed\n");
    assert_eq!(run(&root, "status", 0), format!("bar/2: added\n{installed}"));
    assert_eq!(run(&root, "status foo", 0), installed);
    assert_eq!(run(&root, "status -m f* -v 1.0", 0), installed);
    assert_eq!(run(&root, "status foo/2", 0), "");
    assert_eq!(run(&root, &format!("status -k {K2} -m foo"), 0), "foo/1.0: added\n");
    let twice = format!("{installed}foo/1.0: added\n");
    assert_eq!(run(&root, &format!("status foo -k {K1} -k {K2}"), 0), twice);
}

#[test]
fn status_reports_missing_and_changed_objects() {
    let root = root();
    run(&root, &format!("install foo/1.0 -k {K1}"), 0);
    root.dir(format!("var/lib/dkms/foo/original_module/{K1}/x86_64"));
    root.write(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko"), "something else");
    assert_eq!(
        run(&root, "status", 0),
        format!(
            "foo/1.0, {K1}, x86_64: installed (Original modules exist) \
             (Differences between built and installed modules)\n"
        )
    );
    root.remove(format!("var/lib/dkms/foo/1.0/{K1}/x86_64/module/foo.ko"));
    assert_eq!(
        run(&root, "status", 0),
        format!(
            "foo/1.0, {K1}, x86_64: installed (Original modules exist) \
             (Built modules are missing in the kernel modules folder)\n"
        )
    );
}

#[test]
fn status_warns_about_broken_modules() {
    let root = root();
    root.link("var/lib/dkms/gone/1/source", root.at("usr/src/gone-1"));
    let output = dkms(&root, "status");
    assert_eq!((output.code, output.out.as_str()), (0, "gone/1: broken\n"));
    assert!(
        output.errors.starts_with("dkms: warning: gone/1: broken: source missing"),
        "{}",
        output.errors
    );
    run(&root, "build gone/1", 4);
}

#[test]
fn status_json_lists_failures() {
    let root = root();
    root.source("bad", "1").broken();
    run(&root, &format!("build bad/1 -k {K1}"), 10);
    let rows: serde_json::Value = serde_json::from_str(&run(&root, "status --json", 0)).unwrap();
    let states: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["state"].clone()).collect();
    assert_eq!(states, ["added", "failed"]);
    assert_eq!(rows[1]["kernel"], K1);
    assert!(rows[1]["failure"].as_str().unwrap().contains("too new"), "{rows}");
}

#[test]
fn status_json_lists_stale_images() {
    let root = root();
    root.write("usr/bin/mkinitcpio", "");
    let preset = format!("ALL_kver={K1}\nPRESETS=(default)\ndefault_image=/boot/a.img\n");
    root.write("etc/mkinitcpio.d/linux.preset", preset);
    root.write("boot/a.img", "not an image");
    run(&root, &format!("install foo/1.0 -k {K1}"), 0);
    let rows: serde_json::Value = serde_json::from_str(&run(&root, "status --json", 0)).unwrap();
    let row = rows.as_array().unwrap().last().unwrap();
    assert_eq!((&row["state"], &row["image"]), (&"stale".into(), &"/boot/a.img".into()));
    assert_eq!(row["kernel"], format!("{K1} (linux)"));
    assert_eq!(row["problem"], "needs to be regenerated");
    assert!(row["why"].as_str().unwrap().ends_with("may contain a changed module"), "{row}");
    assert_eq!(row["commands"], serde_json::json!(["mkinitcpio -p linux"]));
    let selected = run(&root, "status --json foo", 0);
    assert!(!selected.contains("stale"), "{selected}");
}

#[test]
fn status_json_lists_pending_installations() {
    let root = root();
    root.source("bad", "1").conf_line("MAKE=no-such-program-of-test");
    let entry = || {
        let rows: serde_json::Value =
            serde_json::from_str(&run(&root, "status --json", 0)).unwrap();
        let states = rows.as_array().unwrap().iter().map(|row| row["state"].clone());
        (states.collect::<Vec<_>>(), rows[1].clone())
    };
    run(&root, &format!("install bad/1 -k {K1}"), 10);
    for (attempts, state) in [(1, "pending"), (2, "pending"), (3, "parked")] {
        let (states, row) = entry();
        assert_eq!(states, ["added", state]);
        assert_eq!((&row["module"], &row["kernel"]), (&"bad".into(), &K1.into()));
        assert_eq!(row["attempts"], attempts);
        assert!(row["failure"].as_str().unwrap().contains("no-such-program-of-test"), "{row}");
        assert!(row["log"].as_str().unwrap().contains("/.log/"), "{row}");
        dkms(&root, "autoinstall --pending");
    }
    let output = dkms(&root, "autoinstall --pending");
    assert_eq!(output.code, 0, "{}", output.errors);
    let want = format!(
        "bad/1 for {K1}: skipped after 3 attempts without success\n  run: dkms autoinstall"
    );
    assert_eq!((output.out + &output.errors).matches(&want).count(), 1);
    assert_eq!(run(&root, "status --json other", 0), "[]\n");
    assert_eq!(run(&root, "status", 0), "bad/1: added\n");
    // dkms.service also skips parked work; dkms in a shell that inherited the variable does not.
    for (id, code) in [("$$", 0), ("1", 11)] {
        let script = format!("export SYSTEMD_EXEC_PID={id}; exec \"$@\"");
        let before = ["sh", "-c", &script, "sh"];
        let output = dkms_through(&before, &root, &format!("autoinstall --verbose -k {K1}"));
        assert_eq!(output.code, code, "{}", output.errors);
    }
    run(&root, "remove bad/1 --all", 0);
    assert_eq!(run(&root, "status --json", 0), "[]\n");
}

#[test]
fn exits_with_the_codes_of_dkms() {
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
        run(&root, line, code);
    }
}

#[test]
fn autoinstall_continues_after_a_failure() {
    let root = root();
    root.source("bad", "1").broken();
    run(&root, "add foo/1.0", 0);
    run(&root, "add bad/1", 0);
    let output = dkms(&root, &format!("autoinstall -k {K1}"));
    assert_eq!(output.code, 11, "{}{}", output.out, output.errors);
    assert!(output.errors.contains("bad/1 for "), "{}", output.errors);
    assert!(root.exists(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko")));
}

#[test]
fn a_dry_run_changes_nothing() {
    let root = root();
    let before = root.listing("");
    let output = run(&root, &format!("install foo/1.0 -k {K1} --dry-run"), 0);
    assert!(output.contains(&format!("build foo/1.0 for {K1}")), "{output}");
    let caches = |line: &&str| !line.contains("/.cache") && !line.contains("/.bin");
    let after = root.listing("");
    assert_eq!(
        after.lines().filter(caches).collect::<Vec<_>>(),
        before.lines().collect::<Vec<_>>()
    );
}

#[test]
fn status_changes_nothing() {
    let root = root();
    let before = root.listing("");
    run(&root, "status", 0);
    run(&root, "status --json", 0);
    assert_eq!(root.listing(""), before);
}

#[test]
fn prints_the_version_and_obeys_quiet() {
    let root = root();
    assert_eq!(run(&root, "--version", 0), "dkms-3.4.3\n");
    assert_eq!(run(&root, "-V", 0), "dkms-3.4.3\n");
    assert!(run(&root, "--help", 0).contains("autoinstall"));
    assert!(dkms(&root, "--frobnicate").errors.contains("--frobnicate"));
    run(&root, "--frobnicate", 2);
    let quiet = dkms(&root, "-q remove nothing/1 --all");
    assert_eq!((quiet.code, quiet.out + &quiet.errors), (3, String::new()));
}

#[test]
fn autoinstall_pending_succeeds_without_pending_work() {
    let root = root();
    run(&root, "autoinstall --pending", 0);
    assert_eq!(run(&root, "status", 0), "");
}

#[test]
fn creates_the_signing_key_once() {
    let root = root();
    let certificate = "ROOT/var/lib/dkms/mok.pub";
    let dry = run(&root, "generate_mok --dry-run", 0);
    assert!(dry.contains("if it does not exist"), "{dry}");
    assert!(!root.exists("var/lib/dkms/mok.key"));
    let made = run(&root, "generate_mok", 0);
    assert!(
        made.starts_with("signing key and certificate created:\n  ROOT/var/lib/dkms/mok.key"),
        "{made}"
    );
    assert!(made.contains(&format!("mokutil --import {certificate}")), "{made}");
    let key = root.read("var/lib/dkms/mok.key");
    let again = run(&root, "generate_mok", 0);
    assert!(again.starts_with("signing key and certificate already exist:"), "{again}");
    assert_eq!(run(&root, "generate_mok -q", 0), "");
    assert_eq!(root.read("var/lib/dkms/mok.key"), key);
}

#[test]
fn key_paths_can_contain_the_kernel() {
    let root = root();
    let paths =
        "mok_signing_key=/keys/$kernelver/key\nmok_certificate=/keys/$kernelver/certificate\n";
    root.write("etc/dkms/framework.conf", paths);
    for file in ["key", "certificate"] {
        root.write(format!("keys/{K1}/{file}"), file);
    }
    root.dir(format!("keys/{K2}"));
    let found = run(&root, &format!("generate_mok -k {K1}"), 0);
    assert!(found.contains(&format!("already exist:\n  ROOT/keys/{K1}/key")), "{found}");
    // Unlike dkms, files that the settings name are not created.
    let output = dkms(&root, &format!("generate_mok -k {K2}"));
    assert_eq!((output.code, output.out.as_str()), (1, ""), "{}", output.errors);
    assert!(output.errors.contains(&format!("ROOT/keys/{K2}/key")), "{}", output.errors);
    assert!(!root.exists(format!("keys/{K2}/key")));
}

#[test]
fn the_only_version_can_be_omitted() {
    let root = root();
    run(&root, "add foo", 0);
    run(&root, "add foo", 3);
    run(&root, &format!("build -m foo -k {K1}"), 0);
    run(&root, &format!("install foo -k {K2}"), 0);
    run(&root, "build foo --all", 0);
    let installed = format!("foo/1.0, {K1}, x86_64: built\nfoo/1.0, {K2}, x86_64: installed\n");
    assert_eq!(run(&root, "status", 0), installed);
    // An empty version does not count as omitted. Commands that remove something require a version.
    run(&root, "install -v", 1);
    for line in ["uninstall foo", "unbuild foo", "remove foo --all", "mktarball foo"] {
        run(&root, line, 1);
    }
    root.source("foo", "1.10");
    root.source("foo", "1.9");
    let output = dkms(&root, "install foo");
    assert_eq!(output.code, 1);
    let list = "dkms: error: foo: more than one version: foo/1.0, foo/1.9, foo/1.10\n  run: dkms install foo/VERSION\n";
    assert_eq!(output.errors, list);
    let output = dkms(&root, "add bar");
    assert_eq!(output.code, 1);
    assert!(output.errors.contains("no source in ROOT/usr/src/bar-VERSION"), "{}", output.errors);
    assert_eq!(run(&root, "status", 0), installed);
}

#[test]
fn a_source_directory_takes_precedence_over_a_known_module() {
    let root = root();
    run(&root, "add foo", 0);
    root.write("foo", "");
    run(&root, "add foo", 3);
    root.remove("foo");
    let conf = root.read("usr/src/foo-1.0/dkms.conf").replace("1.0", "2.0");
    root.write("foo/dkms.conf", conf);
    run(&root, "add foo", 0);
    assert_eq!(run(&root, "status", 0), "foo/1.0: added\nfoo/2.0: added\n");
}

#[test]
fn usage_errors_have_hints() {
    let root = root();
    for (line, code, errors) in [
        ("isntall foo/1.0", 2, "unknown command: isntall\n  did you mean install?"),
        ("frobnicate", 2, "unknown command: frobnicate\n  see: dkms --help"),
        ("", 2, "no command given\n  see: dkms --help"),
        ("install foo/1.0 --forse", 2, "unknown option: --forse\n  did you mean --force?"),
        ("install foo/1.0 -j4", 2, "unknown option: -j4\n  did you mean -j 4?"),
        ("install --frobnicate", 2, "unknown option: --frobnicate\n  see: dkms install --help"),
        ("remove foo", 1, "foo: no version given\n  run: dkms remove foo/VERSION"),
        ("remove", 1, "remove: no module given\n  run: dkms remove MODULE/VERSION"),
        ("kernel_prerm", 4, "kernel_prerm: no kernel given\n  run: dkms kernel_prerm -k RELEASE"),
        ("build foo/1.0 -j x", 2, "invalid value for -j: \"x\" (expected a number)"),
        ("add build", 4, "more than one command given: add, build (expected one)"),
    ] {
        let output = dkms(&root, line);
        assert_eq!(
            (output.code, output.errors),
            (code, format!("dkms: error: {errors}\n")),
            "{line}"
        );
    }
}

#[test]
fn prints_help_for_one_command() {
    let root = root();
    let help = run(&root, "mktarball --help --frobnicate", 0);
    assert!(help.contains("Usage: dkms mktarball MODULE/VERSION [OPTIONS]"), "{help}");
    assert!(help.contains("--source-only") && !help.contains("--timings"), "{help}");
    // As in dkms, the words after --help are ignored.
    assert_eq!(run(&root, "--help mktarball", 0), run(&root, "-h", 0));
    assert_eq!(run(&root, "-q mktarball --help", 0), "");
}

#[test]
fn a_dry_run_writes_no_archive_and_keeps_the_cache() {
    let root = root();
    run(&root, &format!("build foo/1.0 -k {K1}"), 0);
    let output = run(&root, &format!("mktarball foo/1.0 -k {K1} --dry-run"), 0);
    assert_eq!(output, "would write an archive of foo/1.0\n");
    run(&root, &format!("mktarball foo/1.0 -k {K2} --dry-run"), 6);
    assert!(!root.exists("var/lib/dkms/foo/1.0/tarball"));
    run(&root, "remove foo/1.0 --all", 0);
    let listed = run(&root, "cache", 0);
    assert_eq!(run(&root, "cache clear --dry-run", 0), "would delete 1 build\n");
    assert_eq!(run(&root, "cache", 0), listed);
    assert_eq!(run(&root, "cache clear", 0), "deleted 1 build\n");
}

#[test]
fn warns_about_deprecated_directives() {
    let root = root();
    root.source("foo", "1.0").conf_line("CLEAN=\"make clean\"");
    let output = dkms(&root, &format!("build foo/1.0 -k {K1}"));
    assert_eq!(output.code, 0, "{}", output.errors);
    assert!(output.errors.starts_with("dkms: warning: "), "{}", output.errors);
    assert!(output.errors.contains("/dkms.conf: CLEAN is deprecated\n"), "{}", output.errors);
}

#[test]
fn status_names_the_command_that_mends_a_broken_module() {
    let root = root();
    run(&root, &format!("install foo/1.0 -k {K1}"), 0);
    let conf = root.read("usr/src/foo-1.0/dkms.conf");
    root.remove("usr/src/foo-1.0");
    let advice = |want: &str| {
        let output = dkms(&root, "status");
        assert!(output.errors.ends_with(&format!("run: {want}\n")), "{}", output.errors);
    };
    // A kept copy of the source is enough to remove the module.
    advice("dkms remove foo/1.0 --all");
    run(&root, "remove foo/1.0 --all", 0);
    root.write("usr/src/foo-1.0/dkms.conf", conf);
    root.dir("var/lib/dkms/foo/1.0/build");
    advice("dkms add foo/1.0");
    let output = dkms(&root, &format!("build foo/1.0 -k {K1}"));
    assert_eq!(output.code, 4);
    assert!(output.errors.ends_with("run: dkms add foo/1.0\n"), "{}", output.errors);
    run(&root, "add foo/1.0", 0);
}

#[test]
fn enrolment_converts_a_pem_certificate() {
    let root = root();
    root.write(
        "etc/dkms/framework.conf",
        "mok_signing_key=/keys/my.key\nmok_certificate=/keys/my.pem\n",
    );
    root.write("keys/my.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    root.write("keys/my.pem", "-----BEGIN CERTIFICATE-----\n");
    let output = run(&root, "generate_mok", 0);
    let convert = "run: openssl x509 -in ROOT/keys/my.pem -outform DER -out /tmp/my.pem.der\n";
    assert!(output.contains(convert), "{output}");
    assert!(output.contains("run: mokutil --import /tmp/my.pem.der\n"), "{output}");
    assert!(output.contains("KBUILD_SIGN_PIN"), "{output}");
    root.write("keys/my.key", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n");
    assert!(run(&root, "generate_mok", 0).contains("KBUILD_SIGN_PIN"));
    root.write("keys/my.key", "-----BEGIN PRIVATE KEY-----\n");
    root.write("keys/my.pem", [0x30, 0x82]);
    let output = run(&root, "generate_mok", 0);
    assert!(output.contains("run: mokutil --import ROOT/keys/my.pem\n"), "{output}");
    assert!(!output.contains("KBUILD_SIGN_PIN"), "{output}");
}

#[test]
fn preflight_allows_one_transaction() {
    let root = root();
    let permission = "var/lib/dkms/.preflight-allowed";
    let dry = run(&root, "preflight --allow-once --dry-run", 0);
    assert_eq!(dry, "would allow the next transaction to lose modules\n");
    assert!(!root.exists(permission));
    let out = run(&root, "preflight --allow-once", 0);
    assert!(out.starts_with("The preflight will not abort the next transaction "), "{out}");
    assert!(root.exists(permission));
    assert_eq!(run(&root, "status", 0), "");
}

#[test]
fn preflight_of_files_needs_the_trees_of_the_running_system() {
    let refused = dkms(&root(), "preflight foo.pkg.tar.zst");
    assert_eq!(refused.code, 2);
    assert_eq!(refused.errors, "dkms: error: --root: cannot be used with package files\n");
}
