//! Tests of the hook binary, run with arguments and targets as pacman passes them.

#![expect(clippy::unwrap_used, reason = "this file contains only tests")]

use assert_cmd::Command;
use testroot::TestRoot;

const K: &str = "7.2.13-arch1-1";
const TARGETS: &[u8] = b"usr/lib/modules/7.2.13-arch1-1/modules.order\nusr/src/foo-1.0/dkms.conf\n";

/// Runs the hook, asserts that it succeeds, and returns its standard output.
fn hook(root: &TestRoot, words: &[&str], targets: &[u8]) -> String {
    output(root, words, targets).0
}

/// Runs the hook, asserts that it succeeds, and returns its standard output and error.
fn output(root: &TestRoot, words: &[&str], targets: &[u8]) -> (String, String) {
    let output = Command::cargo_bin("dkms-install")
        .unwrap()
        .arg("--root")
        .arg(root.path())
        .args(words)
        .write_stdin(targets)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn journal_records_sources_and_kernels() {
    let root = TestRoot::new();
    hook(&root, &["--journal"], TARGETS);
    hook(&root, &["--journal"], TARGETS);
    let pending = root.listing("var/lib/dkms/.pending");
    let file = pending.lines().find(|line| line.ends_with(".toml")).unwrap_or_default();
    assert_eq!(pending.lines().count(), 1, "a transaction has one file: {pending}");
    let text = root.read(file);
    assert!(text.contains("foo-1.0") && text.contains("7.2.13-arch1-1"), "{text}");
}

#[test]
fn dry_run_prints_the_plan() {
    let root = TestRoot::new();
    root.kernel(K).pkgbase("linux").headers();
    root.source("foo", "1.0");
    let output = hook(&root, &["--dry-run"], TARGETS);
    assert!(output.contains("build foo/1.0 for 7.2.13-arch1-1 (not built yet)"), "{output}");
    assert!(output.ends_with("Dry run: nothing was changed.\n"), "{output}");
}

#[test]
fn reports_errors_in_the_settings() {
    let root = TestRoot::new();
    root.kernel(K).pkgbase("linux").headers();
    root.source("foo", "1.0");
    root.write("etc/dkms/framework.conf", "if true; then\nmok_signing_key=/k\n");
    root.write("etc/dkms/framework.conf.d/x.conf", "mok_certificate = /c\n");
    let output = hook(&root, &["--dry-run"], TARGETS);
    let etc = root.at("etc/dkms").display().to_string();
    let warnings = [
        format!("warning: {etc}/framework.conf: line "),
        format!(
            "warning: {etc}/framework.conf.d/x.conf: line 1: mok_certificate: command not found"
        ),
    ];
    for warning in warnings {
        assert_eq!(output.matches(&warning).count(), 1, "{output}");
    }
    assert!(output.contains("build foo/1.0"), "{output}");
}

/// The hook runs after the whole transaction, so headers that the transaction installs exist by
/// then.
#[test]
fn installation_of_alpm_dkms_notes_missing_headers() {
    let root = TestRoot::new();
    root.remove("var/lib/dkms");
    root.kernel(K).pkgbase("linux");
    root.kernel("6.12.8-1-lts").pkgbase("linux-lts").headers();
    let text = hook(&root, &[], b"alpm-dkms\n");
    let notes: Vec<&str> = text.lines().filter(|line| !line.starts_with("warning: ")).collect();
    let want =
        [&format!("note: {K}: no kernel headers installed"), "  run: pacman -S linux-headers"];
    assert_eq!(notes, want);
}

#[test]
fn is_silent_without_modules() {
    let root = TestRoot::new();
    root.remove("var/lib/dkms");
    root.kernel(K).pkgbase("linux");
    assert_eq!(hook(&root, &[], TARGETS), "");
    assert!(!root.exists("var/lib/dkms"));
}

#[test]
fn reports_missing_headers() {
    let root = TestRoot::new();
    root.kernel(K).pkgbase("linux-zen");
    root.source("foo", "1.0");
    let output = hook(&root, &[], b"usr/src/foo-1.0/dkms.conf\n\xff\xfe\n/etc/passwd\n../x\n");
    assert!(output.contains("  run: pacman -S linux-zen-headers\n"), "{output}");
}

#[test]
fn prints_nothing_about_deprecated_directives() {
    let root = TestRoot::new();
    root.kernel(K).pkgbase("linux").headers();
    root.source("foo", "1.0").conf_line("CLEAN=\"make clean\"");
    let (printed, errors) = output(&root, &[], TARGETS);
    assert!(printed.contains("built and installed"), "{printed}");
    assert!(!printed.contains("deprecated") && !errors.contains("deprecated"), "{errors}");
}

#[test]
fn prints_what_bash_says_about_confs_and_settings() {
    let root = TestRoot::new();
    root.kernel(K).pkgbase("linux").headers();
    root.kernel("7.2.14-arch1-1").pkgbase("linux-lts").headers();
    root.source("foo", "1.0").conf_line("nosuchprogram");
    root.write("etc/dkms/framework.conf", "verbose = 1\n");
    let (printed, errors) = output(&root, &[], TARGETS);
    assert!(printed.contains("built and installed"), "{printed}");
    let conf = root.at("usr/src/foo-1.0/dkms.conf");
    let line = format!(
        "dkms-install: warning: {}: line 6: nosuchprogram: command not found\n",
        conf.display()
    );
    assert_eq!(errors.matches(&line).count(), 1, "{errors}");
    let settings = root.at("etc/dkms/framework.conf");
    let line = format!("warning: {}: line 1: verbose: command not found\n", settings.display());
    assert_eq!(printed.matches(&line).count(), 1, "{printed}");
    assert!(!errors.contains(&line), "{errors}");
}

/// Returns a machine with one module and with a fake alpm-query. `kernels` contains alpm-query's
/// answer for each kernel: the release and the owner.
fn root_with_alpm_query(kernels: &[(&str, &str)]) -> TestRoot {
    let root = TestRoot::new();
    root.kernel(K).pkgbase("linux").headers();
    root.source("foo", "1.0");
    let kernel = |(release, owner): &(&str, &str)| {
        format!(r#""{release}": {{"kernel": {owner}, "headers": null, "headers_package": null}}"#)
    };
    let kernels: Vec<String> = kernels.iter().map(kernel).collect();
    let answer = format!(
        r#"{{"owners": {{"usr/src/foo-1.0/dkms.conf": {{"name": "foo-dkms", "version": "1.0-1"}}}},
            "kernels": {{{}}}}}"#,
        kernels.join(", ")
    );
    root.program("alpm-query", &format!("cat >/dev/null; echo '{answer}'"));
    root
}

const LINUX: &str = r#"{"name": "linux", "version": "7.2.13.arch1-1"}"#;

const OLD: &str = "7.2.12-arch1-1";

/// Runs the hook with the fake alpm-query. Returns the hook's output and the number of times that
/// it called alpm-query.
fn hook_with_alpm_query(root: &TestRoot, words: &[&str], targets: &[u8]) -> (String, usize) {
    let program = root.programs().join("dkms-install");
    if !program.exists() {
        // A child process makes the copy: while this process has a file open for writing, executing
        // the file may fail with "text file busy".
        let original = assert_cmd::cargo::cargo_bin("dkms-install");
        Command::new("cp").arg(original).arg(&program).assert().success();
    }
    root.forget_calls();
    let mut command = Command::new(&program);
    command.arg("--root").arg(root.path()).args(words).write_stdin(targets);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    (String::from_utf8(output.stdout).unwrap(), root.calls("alpm-query").len())
}

const HEADERS: &[u8] = b"usr/lib/modules/7.2.13-arch1-1/build/include/\n";
const HEADERS_AND_SOURCE: &[u8] =
    b"usr/lib/modules/7.2.13-arch1-1/build/include/\nusr/src/foo-1.0/dkms.conf\n";

#[test]
fn looks_up_packages_at_most_once_and_only_if_needed() {
    let root = root_with_alpm_query(&[(K, LINUX)]);
    let (output, calls) = hook_with_alpm_query(&root, &[], HEADERS_AND_SOURCE);
    assert!(output.contains("foo/1.0 for 7.2.13-arch1-1: built"), "{output}");
    assert!(output.contains("for 7.2.13-arch1-1 (linux): foo/1.0"), "{output}");
    assert_eq!(calls, 1);
    let nothing = (String::new(), 0);
    assert_eq!(hook_with_alpm_query(&root, &[], HEADERS_AND_SOURCE), nothing);
    // This time, as in a real transaction, a record of the transaction exists.
    hook_with_alpm_query(&root, &["--journal"], HEADERS_AND_SOURCE);
    assert_eq!(hook_with_alpm_query(&root, &[], HEADERS_AND_SOURCE), nothing);
    assert!(!root.exists("var/lib/dkms/.pending"));
    // A touched kernel may have become a copy that no package owns.
    assert_eq!(hook_with_alpm_query(&root, &[], TARGETS), (String::new(), 1));
    // The same applies to a kernel that an earlier transaction touched.
    let other = b"usr/lib/modules/7.2.12-arch1-1/modules.order\n";
    hook_with_alpm_query(&root, &["--journal"], other);
    assert_eq!(hook_with_alpm_query(&root, &[], HEADERS).1, 1);
    assert_eq!(hook_with_alpm_query(&root, &[], HEADERS), nothing);
}

#[test]
fn does_not_look_up_packages_for_a_pending_image() {
    let root = root_with_alpm_query(&[(K, LINUX)]);
    root.write("usr/bin/mkinitcpio", "");
    let (output, calls) = hook_with_alpm_query(&root, &[], HEADERS_AND_SOURCE);
    assert!(output.contains("installed") && calls == 1, "{output}");
    assert_eq!(hook_with_alpm_query(&root, &[], HEADERS_AND_SOURCE), (String::new(), 0));
    let tree = root.listing("var/lib/dkms");
    assert!(tree.contains("/image-7.2.13-arch1-1-"), "{tree}");
}

#[test]
fn skips_a_copy_of_a_kernel() {
    for targets in [TARGETS, b"usr/lib/modules/7.2.13-arch1-1/\n"] {
        let root = root_with_alpm_query(&[(K, "null")]);
        // An earlier transaction has removed the kernel.
        let departed = "format = 2\n[work]\ndeparted-kernel = \"7.2.13-arch1-1\"\n";
        root.write("var/lib/dkms/.pending/departed-kernel-x.toml", departed);
        let (output, calls) = hook_with_alpm_query(&root, &[], targets);
        assert!(output.contains("7.2.13-arch1-1: skipped: not owned by a package"), "{output}");
        assert!(!output.contains("built") && calls == 1, "{output}");
        assert!(!root.exists("usr/lib/modules/7.2.13-arch1-1/updates"), "{}", root.listing("usr"));
        // The kernel is still skipped when only a source changes.
        root.source("foo", "1.1");
        let (output, calls) = hook_with_alpm_query(&root, &[], b"usr/src/foo-1.1/dkms.conf\n");
        assert!(output.contains("7.2.13-arch1-1: skipped: not owned by a package"), "{output}");
        assert_eq!(calls, 1);
    }
}

/// The copy existed before alpm-dkms was installed, so no pending work names it.
#[test]
fn skips_a_copy_that_shares_its_package_with_another_kernel() {
    let root = root_with_alpm_query(&[(OLD, "null"), (K, LINUX)]);
    root.kernel(OLD).pkgbase("linux").headers();
    let (output, calls) = hook_with_alpm_query(&root, &[], b"usr/src/foo-1.0/dkms.conf\n");
    assert!(output.contains("7.2.12-arch1-1: skipped: not owned by a package"), "{output}");
    assert!(output.contains("(1/1) foo/1.0 for 7.2.13-arch1-1: built"), "{output}");
    assert_eq!(calls, 1);
}

#[test]
fn continues_without_package_names_if_alpm_query_fails() {
    let root = root_with_alpm_query(&[(K, LINUX)]);
    root.program("alpm-query", "echo 'error while loading shared libraries' >&2; exit 127");
    let (output, calls) = hook_with_alpm_query(&root, &[], TARGETS);
    let warning = "warning: cannot look up package names: alpm-query: exit status 127: error while \
                   loading shared libraries; continuing without them\n";
    assert!(output.starts_with(warning), "{output}");
    assert!(output.contains("foo/1.0 for 7.2.13-arch1-1: built") && calls == 1, "{output}");
}

#[test]
fn renamed_module_is_installed_under_its_new_name() {
    for (old, new) in [("vbox-4.3/1", "vbox/4.3-1"), ("xpad-v0.11-pre/64", "xpad/v0.11-pre-64")] {
        let root = TestRoot::new();
        root.kernel(K).pkgbase("linux").headers();
        let (name, version) = new.split_once('/').unwrap();
        root.source(name, version);
        let source = format!("usr/src/{name}-{version}");
        root.link(format!("var/lib/dkms/{old}/source"), format!("/{source}"));
        let output = hook(&root, &[], format!("{source}/dkms.conf\n").as_bytes());
        let note = format!("note: {old}: renamed to {new} to match its dkms.conf\n");
        assert!(output.starts_with(&note), "{output}");
        assert!(root.exists(format!("usr/lib/modules/{K}/updates/dkms/{name}.ko")), "{output}");
        assert!(!root.exists(format!("var/lib/dkms/{old}")), "{output}");
    }
}

/// A script of a module runs pacman. The hook must not wait for the lock of the run that has
/// started the script.
#[test]
fn hook_within_a_run_does_not_wait_for_the_lock() {
    for is_begun in [true, false] {
        let root = TestRoot::new();
        root.kernel(K).pkgbase("linux").headers();
        root.source("foo", "1.0");
        root.write("var/lib/dkms/.lock", "");
        let lock = std::fs::File::open(root.at("var/lib/dkms/.lock")).unwrap();
        lock.lock().unwrap();
        hook(&root, &["--journal"], TARGETS);
        if is_begun {
            let work = format!("[work.install]\nmodule = \"foo/1.0\"\nkernel = \"{K}\"\n");
            root.write("var/lib/dkms/.pending/install.toml", work);
        }
        let pending = root.listing("var/lib/dkms/.pending");
        let mut command = Command::cargo_bin("dkms-install").unwrap();
        command.arg("--root").arg(root.path()).env("ALPM_DKMS_WITHIN_RUN", "1");
        let command = command.write_stdin(TARGETS).timeout(std::time::Duration::from_secs(60));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        // The hook does not install a module that the outer run has begun to install.
        let is_installed = root.exists(format!("usr/lib/modules/{K}/updates/dkms/foo.ko"));
        assert_eq!(is_installed, !is_begun, "{output:?}");
        assert_eq!(root.listing("var/lib/dkms/.pending"), pending);
    }
}
