//! `dkms preflight` tries modules for packages before a transaction installs them.

use stories::{PackageFile, Recipe, Root, find};

use crate::fixture::{assert_no_processes, kernel, release};
use crate::preflight_fixture::{broken_for_the_next_kernel, critical, machine};
use crate::preflight_interruptions::{PAUSE, scratch, start_until, waiting_machine};

/// Returns the command that tries these packages, with `options`.
fn preflight<'a>(options: &[&'a str], packages: &'a [PackageFile]) -> Vec<&'a str> {
    let files = packages.iter().map(|package| package.file.as_str());
    ["preflight"].into_iter().chain(options.iter().copied()).chain(files).collect()
}

/// Makes every compilation fail, in the preflight of a transaction and in the other hooks.
fn break_compiler(root: &Root) {
    root.shell("cc1=$(gcc -print-prog-name=cc1) && mv $cc1 $cc1.real && ln -s /bin/false $cc1")
        .ok();
}

#[test]
fn the_transaction_uses_the_builds_of_the_command() {
    let root = machine(&[find("bbswitch")]);
    let next = kernel("linux", 2);
    let release = next[0].release().to_owned();
    let before = root.changes_elsewhere();
    let dry = root.dkms(&preflight(&["--dry-run"], &next)).ok();
    dry.has("would test-build the modules with: ").has("linux-headers");
    let tried = root.dkms(&preflight(&["--idle"], &next)).ok();
    tried.has(&format!("1 module built for {release}"));
    assert_eq!(root.changes_elsewhere(), before);
    assert_eq!(scratch(&root), [""; 0]);
    root.assert_absent(&release, "bbswitch");

    break_compiler(&root);
    root.install(&next).hooks_succeed();
    root.assert_works(&release, "bbswitch");
}

#[test]
fn a_regression_has_an_exit_code_of_its_own() {
    let root = machine(&[find("bbswitch")]);
    root.install(&[broken_for_the_next_kernel("broken").make(&root)]).hooks_succeed();
    let next = kernel("linux", 2);
    let release = next[0].release().to_owned();
    let tried = root.dkms(&preflight(&[], &next)).exits(11).lacks("--ignore");
    let tried = tried
        .has(&format!("broken/1.0 for {release}: "))
        .has("#error this kernel is not supported");
    tried.has(&format!("1 module built for {release}"));

    let json = root.dkms(&preflight(&["--json"], &next)).exits(11);
    let report: serde_json::Value = serde_json::from_str(&json.text).expect("JSON");
    let lost = &report["regressions"][0];
    assert_eq!((&lost["module"], &lost["kernel"]), (&"broken".into(), &release.into()));
    assert!(root.exists(lost["log"].as_str().expect("a log")), "{lost}");
}

#[test]
fn files_that_are_not_packages_are_refused() {
    let root = machine(&[find("bbswitch")]);
    root.dkms(&["preflight", "/srv/nothing"]).exits(1).has("/srv/nothing: ");
    root.write("srv/text", "no package");
    let text = root.dkms(&["preflight", "/srv/text"]).exits(1);
    text.has("dkms: error: /srv/text: not a package file");
    let other = Recipe::empty("other", "1").file("usr/share/other", "").make(&root);
    root.dkms(&["preflight", &other.file]).ok().has("nothing to build");
    let headers = find("linux-headers-2");
    let alone = root.dkms(&["preflight", &headers.file]).ok();
    alone.has(&format!(
        "warning: {}: these packages contain its headers, but the kernel is not installed",
        headers.release()
    ));
}

#[test]
fn an_upgrade_is_tried_before_it_is_run() {
    let root = machine(&[find("bbswitch")]);
    let next = kernel("linux", 2);
    let release = next[0].release().to_owned();
    let other = |version| {
        let other = Recipe::empty("other", version).file("usr/share/other", version);
        other.make(&root)
    };
    root.make_repository(&[other("1")]);
    root.install(&[other("1")]);
    let nothing = root.dkms(&["preflight", "--upgrade"]).ok();
    nothing.has("nothing to build: the next upgrade installs no kernel, headers or module source");

    root.publish(&[&next[..], &[other("2")]].concat());
    let dry = root.dkms(&["preflight", "--upgrade", "--dry-run"]).ok();
    dry.has("would test-build the modules with: linux ").has("linux-headers ").lacks("other");
    let missing = root.dkms(&["preflight", "--upgrade", "--no-download"]).exits(1);
    missing.has(": not in pacman's cache");
    let tried = root.dkms(&["preflight", "--upgrade", "--idle"]).ok();
    tried.has(&format!("1 module built for {release}"));
    assert!(!root.exists("var/lib/pacman/sync/testbed.db"));
    assert_eq!(root.names("tmp"), [""; 0]);
    let cached = root.names("var/cache/pacman/pkg");
    assert_eq!(cached.len(), 2, "{cached:?}");
    root.assert_absent(&release, "bbswitch");

    break_compiler(&root);
    root.pacman(&["-Syu"]).ok().hooks_succeed();
    root.assert_works(&release, "bbswitch");
}

#[test]
fn status_warns_of_what_the_next_upgrade_would_lose() {
    let root = machine(&[find("bbswitch")]);
    root.install(&[broken_for_the_next_kernel("broken").make(&root)]).hooks_succeed();
    let next = kernel("linux", 2);
    root.make_repository(&next);
    root.dkms(&["preflight", "--upgrade"]).exits(11);
    let warning = format!(
        "dkms: warning: the next upgrade would lose broken/1.0 for {}; see: dkms preflight --upgrade",
        next[0].release()
    );
    root.dkms(&["status"]).ok().has(&warning);
    root.dkms(&["status", "bbswitch"]).ok().lacks("upgrade");
    root.pacman(&["-Syu"]).ok();
    root.dkms(&["status"]).ok().lacks("upgrade");
}

/// The command holds the lock only while it reads the trees and stores builds. The transaction has
/// a preflight of its own, so that two run at the same time.
#[test]
fn transactions_do_not_wait_for_the_command() {
    let (root, next) = waiting_machine();
    root.write(PAUSE, "make");
    let command = [&["/usr/bin/dkms"], &preflight(&[], &next)[..]].concat();
    let mut tried = start_until(&root, &command, "sleep 1002 ");
    let other = Recipe::module("other", "1.0").make(&root);
    root.install(&[other]).hooks_succeed().has("1 module built for ");
    root.assert_works(&release(), "other");
    assert!(!tried.has_ended());
    assert_eq!(scratch(&root).len(), 1);
    root.write(PAUSE, "");
    root.shell("pkill -f 'sleep 1002'").ok();
    tried.finish().ok().has("1 module built for ");
    assert_eq!(scratch(&root), [""; 0]);

    break_compiler(&root);
    root.install(&next).hooks_succeed();
    assert_eq!(root.modinfo(&release(), "slow", "version"), "2.0");
}

#[test]
fn a_critical_regression_comes_with_what_to_do() {
    let root = machine(&[]);
    root.install(&[broken_for_the_next_kernel("disk").make(&root)]).hooks_succeed();
    critical(&root, &["disk"]);
    let next = kernel("linux", 2);
    let files = root.dkms(&preflight(&[], &next)).exits(11).has("error: disk/1.0 for ");
    let files = files.has("A transaction with these packages would be aborted.");
    files.lacks("leave out").has("without disk, run: dkms preflight --allow-once");
    root.make_repository(&next);
    let upgrade = root.dkms(&["preflight", "--upgrade"]).exits(11);
    upgrade.has("run: pacman -Syu --ignore linux,linux-headers");
    root.dkms(&["preflight", "--allow-once"]).ok();
    let permitted = root.dkms(&preflight(&[], &next)).exits(11).lacks("would be aborted");
    permitted.has("note: an earlier dkms preflight --allow-once permits this transaction");
}

#[test]
fn names_of_unknown_critical_modules_are_reported() {
    let root = machine(&[find("bbswitch")]);
    critical(&root, &["bbswitch", "no-such"]);
    let tried = root.dkms(&preflight(&[], &kernel("linux", 2))).ok();
    let tried = tried
        .has("warning: [preflight] critical: no_such: ignored: no installed module has this name");
    tried.lacks("critical: bbswitch");
}

#[test]
fn a_signal_ends_the_command() {
    let (root, next) = waiting_machine();
    let mounts = root.mounts();
    let command = [&["/usr/bin/dkms"], &preflight(&[], &next)[..]].concat();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        root.write(PAUSE, "make");
        let started = start_until(&root, &command, "sleep 1002 ");
        root.shell(&format!("kill -s {signal} -- -{}", started.id())).ok();
        started.finish().exits(code).has("dkms: error: interrupted by SIG");
        assert_no_processes(&root, signal);
        assert_eq!(root.mounts(), mounts);
        assert_eq!(scratch(&root), [""; 0]);
    }
    root.write(PAUSE, "");
    root.dkms(&command[1..]).ok();
}

#[test]
fn a_signal_ends_a_download() {
    let root = machine(&[find("bbswitch")]);
    root.make_repository(&kernel("linux", 2));
    let conf = root.read("etc/pacman.conf");
    let slow = "[options]\nXferCommand = /bin/sh -c \"sleep 1003 && false\" %u\n";
    root.write("etc/pacman.conf", &conf.replace("[options]\n", slow));
    for signal in ["INT", "TERM"] {
        let command = ["/usr/bin/dkms", "preflight", "--upgrade"];
        let started = start_until(&root, &command, "sleep 1003 ");
        // Only the command: Ctrl-C does not reach the process group of pacman.
        root.shell(&format!("kill -s {signal} {}", started.id())).ok();
        let code = if signal == "INT" { 130 } else { 143 };
        started.finish().exits(code).has("dkms: error: pacman: interrupted");
        assert_no_processes(&root, signal);
        assert_eq!(root.names("tmp"), [""; 0]);
    }
}
