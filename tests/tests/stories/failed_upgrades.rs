//! A new version of a module fails to compile: the old one stays installed.

use stories::{PackageFile, Recipe, Root, find};

use crate::fixture::{assert_status, installed, kernel, machine, object, release, traces};

/// Builds a version of bbswitch that does not compile.
fn broken(root: &Root) -> PackageFile {
    Recipe::like("bbswitch")
        .version("0.9")
        .edit("bbswitch.c", |code| code + "\n#error this version is broken\n")
        .make(root)
}

/// Asserts that only the removal of the old version is pending, until a new one compiles.
#[track_caller]
fn assert_only_the_removal_is_pending(root: &Root) {
    let pending = root.pending();
    assert!(pending.iter().all(|work| work.contains("bbswitch-0.8")), "{pending:?}");
    root.assert_tidy();
}

/// Removing the package also removes the old version.
#[test]
fn failed_upgrade_keeps_the_old_version_until_removal() {
    let root = machine(&[find("bbswitch")]);
    let (old, release) = (find("bbswitch"), release());
    let object = object(&release, "bbswitch");
    let before = root.bytes(&object);
    root.install(&[broken(&root)])
        .hooks_fail()
        .has("0.9")
        .has("this version is broken")
        .has("/var/lib/dkms/.log/")
        .has("stays installed");
    assert_eq!(root.bytes(&object), before);
    root.assert_works(&release, "bbswitch");
    assert_status(&root, &[installed(old.module(), &release), "bbswitch/0.9: added".into()]);
    assert_only_the_removal_is_pending(&root);

    let output = root.remove(&["bbswitch-dkms"]).hooks_succeed();
    assert_eq!(traces(&root, "bbswitch"), [""; 0], "{}", output.text);
    assert!(!root.exists(&format!("usr/lib/modules/{release}/updates")));
    assert_status(&root, &[]);
    root.assert_settled();
}

/// A third version compiles and replaces the old version and the broken one.
#[test]
fn fixed_version_replaces_both() {
    let root = machine(&[find("bbswitch")]);
    root.install(&[broken(&root)]).hooks_fail();
    let mended = Recipe::like("bbswitch")
        .version("0.10")
        .edit("bbswitch.c", |code| code + "\nMODULE_INFO(testbed, \"0.10\");\n")
        .make(&root);
    root.install(&[mended]).hooks_succeed();
    let release = release();
    root.assert_works(&release, "bbswitch");
    assert_eq!(root.modinfo(&release, "bbswitch", "testbed"), "0.10");
    assert_status(&root, &[installed("bbswitch/0.10", &release)]);
    let known = ["0.8", "0.9"].map(|version| traces(&root, &format!("bbswitch/{version}")));
    assert_eq!(known, [[""; 0]; 2]);
    assert_eq!(root.names("var/lib/dkms/.failed"), [""; 0]);
    root.assert_settled();
}

/// The new version compiles for only one of two kernels. The other kernel keeps the old version.
#[test]
fn new_version_is_installed_for_one_of_two_kernels() {
    let root = machine(&[find("bbswitch")]);
    root.install(&kernel("linux-lts", 1)).hooks_succeed();
    let not_for_lts =
        "\nifneq ($(findstring lts,$(KERNELRELEASE)),)\n$(error not for an lts)\nendif\n";
    let new = Recipe::like("bbswitch")
        .version("0.9")
        .edit("Makefile", |makefile| makefile + not_for_lts)
        .make(&root);
    let (release, lts) = (release(), find("linux-lts-1").content);
    let before = root.bytes(&object(&lts, "bbswitch"));
    root.install(&[new]).hooks_fail().has("not for an lts");
    assert_eq!(root.bytes(&object(&lts, "bbswitch")), before);
    for kernel in [&release, &lts] {
        root.assert_works(kernel, "bbswitch");
    }
    let lines = [installed("bbswitch/0.8", &lts), installed("bbswitch/0.9", &release)];
    assert_status(&root, &lines);
    assert_only_the_removal_is_pending(&root);

    root.remove(&["bbswitch-dkms"]).hooks_succeed();
    assert_eq!(traces(&root, "bbswitch"), [""; 0]);
}
