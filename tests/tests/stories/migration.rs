//! Migration from dkms, back to it, and removal of alpm-dkms.

use std::fs;

use rstest::rstest;
use stories::{PackageFile, Recipe, Root, find};

use crate::fixture::{assert_status, installed, machine, object, release, traces};

/// Creates a machine with dkms, which has built and installed bbswitch.
fn dkms_machine(kernel: &str) -> Root {
    let root = Root::bare();
    root.install(&[kernel, "linux-headers-1", "dkms", "bbswitch"].map(find));
    root.run("/usr/bin/dkms", &["install", find("bbswitch").module(), "-k", &release()]).ok();
    root.assert_works(&release(), "bbswitch");
    root
}

fn ours() -> PackageFile {
    find("alpm-dkms")
}

/// Returns the path of our record of bbswitch.
fn record() -> String {
    format!("var/lib/dkms/{}/{}/x86_64/alpm-dkms.toml", find("bbswitch").module(), release())
}

/// Nothing is compiled until a new version is installed.
#[test]
fn dkms_builds_are_adopted_upgraded_and_removed() {
    let root = dkms_machine("linux-1");
    let before = root.bytes(&object(&release(), "bbswitch"));
    let status = root.peer_status();
    let compilers = root.count_compilers();
    root.install_replacing(&[ours()]).hooks_succeed();
    // The compilers of a preflight are not counted.
    root.mask_preflight();
    compilers.assert_none();
    assert!(root.exists(&record()), "no record was written");
    assert_eq!(root.bytes(&object(&release(), "bbswitch")), before);
    assert_status(&root, &status);
    assert_eq!(status, [installed(find("bbswitch").module(), &release())]);
    root.assert_settled();
    // The adopted build is up to date.
    root.install(&[find("bbswitch"), find("linux-headers-1")]).hooks_succeed();
    compilers.assert_none();

    root.install(&[find("bbswitch-next")]).hooks_succeed();
    assert!(!compilers.starts().is_empty());
    root.assert_works(&release(), "bbswitch");
    assert_status(&root, &[installed(find("bbswitch-next").module(), &release())]);

    root.remove(&["bbswitch-dkms"]).hooks_succeed();
    assert_eq!(traces(&root, "bbswitch"), [""; 0]);
    root.assert_settled();
}

/// The adopted build is removed before it was ever rebuilt.
#[test]
fn adopted_builds_are_removed_without_a_trace() {
    let root = dkms_machine("linux-1");
    root.install_replacing(&[ours()]).hooks_succeed();
    root.remove(&["bbswitch-dkms"]).hooks_succeed();
    assert_eq!(traces(&root, "bbswitch"), [""; 0]);
    root.assert_absent(&release(), "bbswitch");
    assert_eq!(root.tree(), [""; 0]);
}

/// dkms moved a packaged module of the same name to `original_module`. It is restored.
#[test]
fn original_modules_are_restored() {
    let root = dkms_machine("linux-1-bbswitch");
    assert!(root.exists("var/lib/dkms/bbswitch/original_module"), "dkms did not move the module");
    let compilers = root.count_compilers();
    root.install_replacing(&[ours()]).hooks_succeed();
    compilers.assert_none();
    root.run("pacman", &["-Qkk", "linux"]).ok().has("0 altered files");
    assert!(!root.exists("var/lib/dkms/bbswitch/original_module"));
    root.assert_works(&release(), "bbswitch");
    assert_status(&root, &[installed(find("bbswitch").module(), &release())]);
}

/// Asserts that dkms, whose package replaced ours, prints this status and removes all modules, and
/// that we left no files in its tree.
#[track_caller]
fn assert_usable_by_dkms(root: &Root, want: &[String]) {
    let status = root.run("/usr/bin/dkms", &["status"]).ok();
    assert_eq!(status.lines(), want);
    root.assert_works(&release(), "bbswitch");
    let mut ours = root.names("var/lib/dkms");
    ours.retain(|name| name.starts_with('.') && name != ".kept");
    assert_eq!(ours, [""; 0], "our files remain in the tree");
    let versions = want.iter().map(|line| line.split([',', ':']).next().unwrap_or_default());
    for version in versions {
        root.run("/usr/bin/dkms", &["remove", version, "--all"]).ok();
    }
    root.assert_absent(&release(), "bbswitch");
    assert_eq!(root.tree(), [""; 0]);
}

/// alpm-dkms adopts a build of dkms, and then dkms replaces alpm-dkms.
#[test]
fn dkms_can_use_adopted_builds_again() {
    let root = dkms_machine("linux-1");
    root.install_replacing(&[ours()]).hooks_succeed();
    let compilers = root.count_compilers();
    root.install_replacing(&[find("dkms")]).hooks_succeed();
    compilers.assert_none();
    assert_usable_by_dkms(&root, &[installed(find("bbswitch").module(), &release())]);
}

/// dkms replaces alpm-dkms, which had built the module.
#[test]
fn dkms_can_use_our_builds() {
    let root = machine(&[find("bbswitch")]);
    root.install_replacing(&[find("dkms")]).hooks_succeed();
    assert!(!root.exists("usr/lib/alpm-dkms"));
    assert_usable_by_dkms(&root, &[installed(find("bbswitch").module(), &release())]);
}

/// dkms replaces alpm-dkms while an old version stays installed because the new one does not
/// compile.
#[test]
fn dkms_can_use_kept_sources() {
    let root = machine(&[find("bbswitch")]);
    let broken = Recipe::like("bbswitch")
        .version("0.9")
        .edit("bbswitch.c", |code| code + "\n#error this version is broken\n")
        .make(&root);
    root.install(&[broken]).hooks_fail();
    root.install_replacing(&[find("dkms")]).hooks_succeed();
    let old = find("bbswitch");
    let link = root.path(&format!("var/lib/dkms/{}/source", old.module()));
    let source = fs::read_link(link).unwrap();
    assert!(root.exists(&format!("{}/dkms.conf", source.display())), "{source:?} does not exist");
    let want = [installed(old.module(), &release()), "bbswitch/0.9: added".into()];
    assert_usable_by_dkms(&root, &want);
}

/// `pacman -Rs` of the last module also removes alpm-dkms, an unneeded dependency. `pacman -Rc
/// alpm-dkms` also removes the module.
#[rstest]
#[case::of_the_module(&["-Rs", "tiny-dkms"])]
#[case::of_alpm_dkms(&["-Rc", "alpm-dkms"])]
fn removal_with_the_last_module_leaves_nothing(#[case] command: &[&str]) {
    let root = Root::ready();
    let module = Recipe::module("tiny", "1.0")
        .conf_line("POST_REMOVE=\"post_remove.sh\"")
        .source(
            "post_remove.sh",
            "#!/bin/sh\necho \"$module $kernelver\" >>/var/log/tiny-removed\n",
        )
        .make(&root);
    root.install(&["linux-1", "linux-headers-1"].map(find)).hooks_succeed();
    let before = root.snapshot(&format!("usr/lib/modules/{}", release()));
    root.install(&[module]).hooks_succeed();
    root.assert_works(&release(), "tiny");
    root.run("pacman", &["-D", "--asdeps", "alpm-dkms"]).ok();

    root.pacman(command).ok().hooks_succeed();
    assert!(!root.exists("usr/bin/dkms"), "alpm-dkms was not removed");
    root.assert_absent(&release(), "tiny");
    root.snapshot(&format!("usr/lib/modules/{}", release()))
        .assert_matches(&before, "after the removal");
    assert!(!root.exists("var/lib/dkms"), "{:?}", root.snapshot("var/lib/dkms").paths());
    assert_eq!(root.read("var/log/tiny-removed").lines().count(), 1);
    assert_eq!(root.processes(), []);
}

/// The move to alpm-dkms does not turn framework.conf into a .pacsave file.
#[test]
fn framework_conf_survives_the_migration() {
    let root = dkms_machine("linux-1");
    let conf = root.read("etc/dkms/framework.conf") + "mok_signing_key=\"/root/my.key\"\n";
    root.write("etc/dkms/framework.conf", &conf);
    root.install_replacing(&[ours()]).hooks_succeed();
    assert_eq!(root.read("etc/dkms/framework.conf"), conf);
    assert!(!root.exists("etc/dkms/framework.conf.pacsave"));
    // Packages and administrators put their own settings here. On Arch Linux, a hook creates it.
    let created = root.read("usr/lib/tmpfiles.d/alpm-dkms.conf");
    assert!(created.contains("\nd /etc/dkms/framework.conf.d 0755 root root -\n"), "{created}");

    // Neither do an upgrade and the removal of alpm-dkms.
    root.install(&[ours()]).hooks_succeed();
    root.pacman(&["-Rdd", "alpm-dkms"]).ok().hooks_succeed();
    assert_eq!(root.read("etc/dkms/framework.conf"), conf);
}
