//! Migration from dkms, back to it, and removal of alpm-dkms.

use std::fs;

use stories::{PackageFile, Recipe, Root, find};

use crate::fixture::{assert_status, installed, machine, object, release, traces};

/// A machine that dkms looked after so far, with bbswitch built and installed by it.
fn machine_of_dkms(kernel: &str) -> Root {
    let root = Root::bare();
    root.install(&[kernel, "linux-headers-1", "dkms", "bbswitch"].map(find));
    root.run("/usr/bin/dkms", &["install", find("bbswitch").module(), "-k", &release()]).ok();
    root.assert_works(&release(), "bbswitch");
    root
}

fn ours() -> PackageFile {
    find("alpm-dkms")
}

/// Where our record of bbswitch is.
fn record() -> String {
    format!("var/lib/dkms/{}/{}/x86_64/alpm-dkms.toml", find("bbswitch").module(), release())
}

/// Story 17.
#[test]
fn what_dkms_built_is_taken_over_upgraded_and_removed() {
    let root = machine_of_dkms("linux-1");
    let before = root.bytes(&object(&release(), "bbswitch"));
    let status = root.peer_status();
    let compilers = root.count_compilers();
    root.install_instead(&[ours()]).hooks_succeed();
    compilers.assert_none();
    assert!(root.exists(&record()), "no record was written");
    assert_eq!(root.bytes(&object(&release(), "bbswitch")), before);
    assert_status(&root, &status);
    assert_eq!(status, [installed(find("bbswitch").module(), &release())]);
    root.assert_settled();
    // What is taken over is up to date.
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

/// Story 17: removal of what was only taken over.
#[test]
fn what_dkms_built_is_removed_without_a_trace() {
    let root = machine_of_dkms("linux-1");
    root.install_instead(&[ours()]).hooks_succeed();
    root.remove(&["bbswitch-dkms"]).hooks_succeed();
    assert_eq!(traces(&root, "bbswitch"), [""; 0]);
    root.assert_absent(&release(), "bbswitch");
    assert_eq!(root.tree(), [""; 0]);
}

/// Story 17: dkms moves a packaged module of the same name away; it is put back.
#[test]
fn modules_that_dkms_moved_away_are_put_back() {
    let root = machine_of_dkms("linux-1-bbswitch");
    assert!(root.exists("var/lib/dkms/bbswitch/original_module"), "dkms left it where it was");
    let compilers = root.count_compilers();
    root.install_instead(&[ours()]).hooks_succeed();
    compilers.assert_none();
    root.run("pacman", &["-Qkk", "linux"]).ok().has("0 altered files");
    assert!(!root.exists("var/lib/dkms/bbswitch/original_module"));
    root.assert_works(&release(), "bbswitch");
    assert_status(&root, &[installed(find("bbswitch").module(), &release())]);
}

/// Asserts that dkms, whose package replaced ours, finds a tree that it can work with: it knows what is installed, and
/// removes it.
#[track_caller]
fn assert_fit_for_dkms(root: &Root, want: &[String]) {
    let status = root.run("/usr/bin/dkms", &["status"]).ok();
    assert_eq!(status.lines(), want);
    root.assert_works(&release(), "bbswitch");
    let mut ours = root.names("var/lib/dkms");
    ours.retain(|name| name.starts_with('.') && name != ".kept");
    assert_eq!(ours, [""; 0], "entries of ours are left");
    let versions = want.iter().map(|line| line.split([',', ':']).next().unwrap_or_default());
    for version in versions {
        root.run("/usr/bin/dkms", &["remove", version, "--all"]).ok();
    }
    root.assert_absent(&release(), "bbswitch");
    assert_eq!(root.tree(), [""; 0]);
}

/// Story 17, and back again.
#[test]
fn what_was_taken_over_goes_back_to_dkms() {
    let root = machine_of_dkms("linux-1");
    root.install_instead(&[ours()]).hooks_succeed();
    let compilers = root.count_compilers();
    root.install_instead(&[find("dkms")]).hooks_succeed();
    compilers.assert_none();
    assert_fit_for_dkms(&root, &[installed(find("bbswitch").module(), &release())]);
}

/// Story 18: what we built ourselves stays with dkms.
#[test]
fn what_we_built_goes_to_dkms() {
    let root = machine(&[find("bbswitch")]);
    root.install_instead(&[find("dkms")]).hooks_succeed();
    assert!(!root.exists("usr/lib/alpm-dkms"));
    assert_fit_for_dkms(&root, &[installed(find("bbswitch").module(), &release())]);
}

/// Story 18: an old version that stands in for one that does not compile.
#[test]
fn a_kept_source_goes_to_dkms_too() {
    let root = machine(&[find("bbswitch")]);
    let broken = Recipe::like("bbswitch")
        .version("0.9")
        .edit("bbswitch.c", |code| code + "\n#error the new one is broken\n")
        .make(&root);
    root.install(&[broken]).hooks_fail();
    root.install_instead(&[find("dkms")]).hooks_succeed();
    let old = find("bbswitch");
    let link = root.path(&format!("var/lib/dkms/{}/source", old.module()));
    let source = fs::read_link(link).unwrap();
    assert!(root.exists(&format!("{}/dkms.conf", source.display())), "{source:?} is not there");
    let want = [installed(old.module(), &release()), "bbswitch/0.9: added".into()];
    assert_fit_for_dkms(&root, &want);
}

/// Story 18: the last module takes us along, as a dependency that nobody needs any more.
#[test]
fn leaving_with_the_last_module_leaves_nothing() {
    let root = Root::ready();
    let module = Recipe::module("tiny", "1.0")
        .conf_line("POST_REMOVE=\"post_remove.sh\"")
        .source(
            "post_remove.sh",
            "#!/bin/sh\necho \"$module $kernelver\" >>/var/log/tiny-removed\n",
        )
        .make(&root);
    root.install(&["linux-1", "linux-headers-1"].map(find)).hooks_succeed();
    let before = root.picture(&format!("usr/lib/modules/{}", release()));
    root.install(&[module]).hooks_succeed();
    root.assert_works(&release(), "tiny");
    root.run("pacman", &["-D", "--asdeps", "alpm-dkms"]).ok();

    root.pacman(&["-Rs", "tiny-dkms"]).ok().hooks_succeed();
    assert!(!root.exists("usr/bin/dkms"), "we are still there");
    root.assert_absent(&release(), "tiny");
    root.picture(&format!("usr/lib/modules/{}", release())).assert_is(&before, "after we left");
    assert!(!root.exists("var/lib/dkms"), "left: {:?}", root.picture("var/lib/dkms").paths());
    assert_eq!(root.read("var/log/tiny-removed").lines().count(), 1);
    assert_eq!(root.processes(), []);
}

/// Story 19.
#[test]
fn a_framework_conf_survives_the_move() {
    let root = machine_of_dkms("linux-1");
    let conf = root.read("etc/dkms/framework.conf") + "mok_signing_key=\"/root/my.key\"\n";
    root.write("etc/dkms/framework.conf", &conf);
    root.install_instead(&[ours()]).hooks_succeed();
    assert_eq!(root.read("etc/dkms/framework.conf"), conf);
    assert!(!root.exists("etc/dkms/framework.conf.pacsave"));

    // Our upgrade and our removal are none of its business either.
    root.install(&[ours()]).hooks_succeed();
    root.pacman(&["-Rdd", "alpm-dkms"]).ok().hooks_succeed();
    assert_eq!(root.read("etc/dkms/framework.conf"), conf);
}
