//! A new version or a replacement of a module fails to compile: the old one stays installed.

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

/// Another package replaces the module's package. Its module has another name and the same object.
#[test]
fn module_of_a_replaced_package_stays_until_the_new_one_is_installed() {
    let root = Root::ready();
    let tiny = Recipe::module("tiny", "1.0").make(&root);
    root.install(&[find("linux-1"), find("linux-headers-1"), tiny]).hooks_succeed();
    let open = |version: &str| {
        Recipe::module("tiny-open", version)
            .package("tiny-open-dkms")
            .replacing("tiny-dkms")
            .edit("dkms.conf", |conf| conf + "BUILT_MODULE_NAME[0]=\"tiny\"\n")
            .source("Makefile", "obj-m := tiny.o\n")
            .source("tiny.c", "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\n")
    };
    let broken = open("2.0").edit("tiny.c", |code| code + "#error testbed says no\n").make(&root);
    let kernel = find("linux-1").content;
    root.install_replacing(&[broken])
        .hooks_fail()
        .has("tiny/1.0 stays installed")
        .has("testbed says no");
    root.assert_works(&kernel, "tiny");
    assert_eq!(root.modinfo(&kernel, "tiny", "version"), "1.0");
    root.boot_unit();
    root.assert_works(&kernel, "tiny");

    let working = open("2.1").make(&root);
    root.install(&[working]).hooks_succeed();
    root.assert_works(&kernel, "tiny");
    assert_eq!(root.tree(), ["tiny-open"]);
    root.assert_settled();
}

/// A library module and the module that depends on it are upgraded together, and the latter does not
/// build.
#[test]
fn dependency_stays_with_the_module_that_does_not_build_with_it() {
    let root = Root::ready();
    let module = |name: &str, version: &str| Recipe::module(name, version);
    let user = |version: &str| module("uses-lib", version).conf_line("BUILD_DEPENDS=lib");
    let old = [module("lib", "1.0"), user("1.0")].map(|recipe| recipe.make(&root));
    let kernels = ["linux-1", "linux-headers-1"].map(find);
    root.install(&[&kernels[..], &old[..]].concat()).hooks_succeed();
    let broken = user("2.0").edit("uses-lib.c", |code| code + "#error testbed says no\n");
    let new = [module("lib", "2.0"), broken].map(|recipe| recipe.make(&root));
    let kernel = find("linux-1").content;
    let versions = || ["lib", "uses-lib"].map(|name| root.modinfo(&kernel, name, "version"));
    root.install(&new).hooks_fail().has("replaced only together with uses-lib, which failed");
    assert_eq!(versions(), ["1.0", "1.0"]);
    // Nothing has changed, so the next transaction and the boot unit leave both alone.
    root.install(&[find("bbswitch")]).hooks_succeed();
    root.boot_unit();
    assert_eq!(versions(), ["1.0", "1.0"]);

    root.install(&[user("2.1").make(&root)]).hooks_succeed();
    assert_eq!(versions(), ["2.0", "2.1"]);
    root.assert_settled();
}
