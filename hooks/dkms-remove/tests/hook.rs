//! Tests of the hook binary, run with arguments and targets as pacman passes them.

#![expect(clippy::unwrap_used, reason = "this file contains only tests")]

use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::machine::Trees;
use testroot::TestRoot;

/// Runs the hook, asserts that it succeeds, and returns its standard output.
fn hook(root: &TestRoot, words: &[&str], targets: &str) -> String {
    let output = Command::cargo_bin("dkms-remove")
        .unwrap()
        .arg("--root")
        .arg(root.path())
        .args(words)
        .write_stdin(targets)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns a machine with an added module that has not been built. The dkms tree also contains
/// files that only alpm-dkms uses.
fn root() -> TestRoot {
    let root = TestRoot::new();
    root.source("foo", "1.0");
    root.link("var/lib/dkms/foo/1.0/source", "/usr/src/foo-1.0");
    root.write("var/lib/dkms/.pending/source-foo.toml", "");
    root.write("var/lib/dkms/.cache/digests", "");
    root.write("var/lib/dkms/.kept/foo-1.0/dkms.conf", "");
    root
}

#[test]
fn removes_a_module_without_a_source() {
    let root = root();
    root.remove("usr/src/foo-1.0");
    root.remove("var/lib/dkms/.pending");
    let output = hook(&root, &[], "usr/src/foo-1.0/dkms.conf\n");
    assert!(output.contains("foo/1.0: removed"), "{output}");
    assert!(!root.exists("var/lib/dkms/foo"), "{}", root.listing("var"));
    assert!(!root.exists("var/lib/dkms/.kept"), "{}", root.listing("var"));
}

#[test]
fn keeps_a_module_with_a_source() {
    let root = root();
    root.remove("var/lib/dkms/.pending");
    hook(&root, &[], "usr/src/foo-1.0/dkms.conf\n");
    assert!(root.exists("var/lib/dkms/foo/1.0/source"));
}

#[test]
fn departing_with_the_last_module_removes_everything_but_a_record() {
    let root = root();
    hook(&root, &["--depart"], "alpm-dkms\nusr/src/foo-1.0/dkms.conf\n");
    let left = root.listing("var/lib/dkms");
    assert_eq!(left.lines().count(), 2, "{left}");
    assert!(left.contains("var/lib/dkms/.pending/transaction-foo-1.0-"), "{left}");
    assert!(root.exists("usr/src/foo-1.0"));
    // The transaction was aborted, and alpm-dkms is still installed.
    root.kernel("7.2.13-arch1-1").pkgbase("linux").headers();
    root.depmod();
    let [output, _] = both_hooks(&root, "");
    assert!(output.contains("foo/1.0 for 7.2.13-arch1-1: built and installed"), "{output}");
}

#[test]
fn pending_work_is_kept_if_the_transaction_is_aborted() {
    let root = root();
    root.source("bar", "1.0");
    let kernel = "7.2.12-arch1-1".parse().unwrap();
    let work = PendingWork::Install { module: "bar/1.0".parse().unwrap(), kernel };
    let list = PendingList::of(&Trees::under(root.path()));
    list.write(&work).unwrap();
    hook(&root, &["--depart"], "alpm-dkms\n");
    assert!(list.read().contains(&work), "{}", root.listing("var/lib/dkms"));
}

#[test]
fn departing_in_favour_of_dkms_keeps_its_tree() {
    let root = root();
    hook(&root, &["--depart"], "alpm-dkms\nusr/bin/dkms\n");
    assert_eq!(
        root.listing("var/lib/dkms"),
        "var/lib/dkms/foo/\n\
         var/lib/dkms/foo/1.0/\n\
         var/lib/dkms/foo/1.0/source -> /usr/src/foo-1.0\n"
    );
}

#[test]
fn departs_only_if_alpm_dkms_is_removed() {
    let root = root();
    let before = root.listing("");
    assert_eq!(hook(&root, &["--depart"], "usr/src/foo-1.0/dkms.conf\n"), "");
    assert_eq!(root.listing(""), before);
}

/// Runs the hooks of one transaction, all from the same process, as pacman does. Targets that exist
/// have arrived, and the other targets have departed. Returns the output of dkms-install and of
/// dkms-remove.
fn both_hooks(root: &TestRoot, targets: &str) -> [String; 2] {
    let (arrived, departed): (Vec<&str>, Vec<&str>) =
        targets.lines().partition(|path| root.exists(path));
    let run = |hook: &str, flags: &[&str], targets: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin(hook));
        command.args(flags).arg("--root").arg(root.path()).env("PATH", root.search_path());
        let output = command.write_stdin(targets.join("\n")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    run("dkms-remove", &["--journal"], &departed);
    run("dkms-install", &["--journal"], &arrived);
    [run("dkms-install", &[], &arrived), run("dkms-remove", &[], &departed)]
}

/// Returns a machine with foo/1.0 installed and then replaced by foo/2.0, which does not build.
fn root_with_failing_upgrade(make: &str) -> TestRoot {
    let root = TestRoot::new();
    root.kernel("7.2.13-arch1-1").pkgbase("linux").headers();
    root.source("foo", "1.0");
    root.depmod();
    let targets = "usr/src/foo-1.0/dkms.conf\n";
    let [output, _] = both_hooks(&root, targets);
    assert!(output.contains("built and installed"), "{output}");
    root.remove("usr/src/foo-1.0");
    root.source("foo", "2.0").conf_line(&format!("MAKE='{make}'"));
    root
}

#[test]
fn a_failure_is_reported_once_in_a_transaction() {
    for (make, is_pending) in [("echo no; exit 1", false), ("no-such-program", true)] {
        let root = root_with_failing_upgrade(&format!("echo x >> $dkms_tree/.tries; {make}"));
        let targets = "usr/src/foo-1.0/dkms.conf\nusr/src/foo-2.0/dkms.conf\n";
        let [install, remove] = both_hooks(&root, targets);
        assert_eq!(install.matches("foo/2.0 for 7.2.13-arch1-1").count(), 2, "{install}");
        assert_eq!(install.matches("foo/1.0").count(), 1, "{install}");
        assert!(install.contains("  note: foo/1.0 stays installed"), "{install}");
        assert_eq!(remove, "");
        let pending = root.listing("var/lib/dkms/.pending");
        assert_eq!(pending.contains("foo_2.0"), is_pending, "{pending}");
        assert_eq!(root.read("var/lib/dkms/.tries"), "x\n");
        // The next transaction reports the failure again.
        let [install, remove] = both_hooks(&root, "usr/src/foo-2.0/dkms.conf\n");
        assert!(install.contains("foo/2.0") && remove.is_empty(), "{install}{remove}");
        assert_eq!(install.matches("foo/1.0").count(), 1, "{install}");
    }
}

#[test]
fn a_transaction_that_only_removes_reports_everything() {
    let root = root_with_failing_upgrade("echo no; exit 1");
    // Another process ran dkms-install, so its report belongs to another transaction.
    let [install, _] = both_hooks(&root, "usr/src/foo-2.0/dkms.conf\n");
    assert!(install.contains("FAILED"), "{install}");
    let told = root.read("var/lib/dkms/.cache/transaction.json");
    let pid = std::process::id().to_string();
    root.write("var/lib/dkms/.cache/transaction.json", told.replace(&pid, "1"));
    let output = hook(&root, &[], "usr/src/foo-1.0/dkms.conf\n");
    assert!(output.contains("foo/2.0: skipped for 7.2.13-arch1-1"), "{output}");
}

/// The targets of a transaction that installs foo/1.0.
const INSTALL_FOO: &str = "usr/src/foo-1.0/dkms.conf\n";

/// Returns a machine with foo/1.0, whose build waits for the file `go`. Each start of the build
/// adds a line to the file `starts`.
fn root_with_slow_build() -> TestRoot {
    let root = TestRoot::new();
    root.kernel("7.2.13-arch1-1").pkgbase("linux").headers();
    root.depmod();
    root.write("var/lib/pacman/db.lck", "");
    let top = root.path().display().to_string();
    let script =
        format!("echo x >>{top}/starts; until [ -e {top}/go ]; do sleep 0.1; done\nexec \"$@\"\n");
    root.source("foo", "1.0")
        .file("wait.sh", &script)
        .conf_line("MAKE='sh wait.sh make -C $kernel_source_dir M=$dkms_tree/foo/1.0/build'");
    root
}

/// Runs dkms-install until its build has started, and then ends it with a signal. Returns its
/// output.
fn install_until_signal(root: &TestRoot, signal: &str) -> String {
    let mut install = start_install(root);
    let patience = Instant::now() + Duration::from_secs(60);
    while !root.exists("starts") || root.read("starts").is_empty() {
        let ended = install.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < patience, "the build did not start");
        sleep(Duration::from_millis(20));
    }
    let process = install.id().to_string();
    Command::new("kill").args(["-s", signal, &process]).assert().success();
    String::from_utf8(install.wait_with_output().unwrap().stdout).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "assert_cmd waits for the program's end")]
fn start_install(root: &TestRoot) -> Child {
    let targets = root.at("targets");
    std::fs::write(&targets, INSTALL_FOO).unwrap();
    // The tests may have been started with these signals ignored.
    std::process::Command::new("env")
        .args(["--default-signal=INT,HUP,TERM"])
        .arg(assert_cmd::cargo::cargo_bin("dkms-install"))
        .arg("--root")
        .arg(root.path())
        .env("PATH", root.search_path())
        .stdin(std::fs::File::open(&targets).unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn builds_that_a_signal_ended_are_left_to_the_next_transaction() {
    let command = "run: dkms autoinstall --pending";
    for (signal, is_reported) in [("INT", true), ("TERM", true), ("KILL", false)] {
        let root = root_with_slow_build();
        let output = install_until_signal(&root, signal);
        assert_eq!(output.contains(command), is_reported, "{signal}: {output}");
        let output = hook(&root, &[], INSTALL_FOO);
        assert_eq!(output.contains(command), !is_reported, "{signal}: {output}");
        assert_eq!(root.read("starts"), "x\n", "{signal}");
        assert!(root.listing("var/lib/dkms/.pending").contains("foo"), "{signal}");

        root.write("go", "");
        let [output, _] = both_hooks(&root, "");
        assert!(output.contains("foo/1.0 for 7.2.13-arch1-1: built"), "{signal}: {output}");
        assert!(!root.exists("var/lib/dkms/.pending"), "{signal}");
    }
}

/// A daemon such as PackageKit runs several transactions. Here, the second one only removes a
/// module.
#[test]
fn builds_that_a_signal_ended_are_finished_by_another_transaction_of_the_process() {
    for signal in ["HUP", "KILL"] {
        let root = root_with_slow_build();
        install_until_signal(&root, signal);
        root.remove("var/lib/pacman/db.lck");
        root.write("var/lib/pacman/db.lck", "");
        root.write("go", "");
        let output = hook(&root, &[], "usr/src/other-1.0/dkms.conf\n");
        assert!(output.contains("foo/1.0 for 7.2.13-arch1-1: built"), "{signal}: {output}");
    }
}
