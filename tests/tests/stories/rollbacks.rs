//! A part of the machine is rolled back, lost or damaged; the next run installs the modules again.

use stories::{PackageFile, Recipe, Root, find};

use crate::fixture::{installed, kernel, machine, object, release};

/// Runs the boot unit and then, on a copy of the machine, a transaction that concerns another module.
/// Each must leave a working bbswitch.
#[track_caller]
fn assert_recovers(root: &Root, release: &str) {
    let by_hook = root.fork();
    root.boot_unit().ok();
    by_hook.install(&[find("acpi-call")]).hooks_succeed();
    for root in [root, &by_hook] {
        root.assert_works(release, "bbswitch");
        root.assert_settled();
    }
}

/// Upgrades the kernel and bbswitch, and then puts back `trees` as they were before.
#[track_caller]
fn rolled_back(trees: &[&str]) -> Root {
    let root = machine(&[find("bbswitch")]);
    let list = trees.join(" ");
    root.shell(&format!("cd / && tar -cf /srv/before.tar {list}")).ok();
    root.install(&[&kernel("linux", 2)[..], &[find("bbswitch-next")]].concat()).hooks_succeed();
    root.shell(&format!("cd / && rm -r {list} && tar -xf /srv/before.tar")).ok();
    root
}

/// The subvolume of `/` has the packages' files and pacman's database, but not `/var/lib/dkms`.
#[test]
fn root_is_rolled_back_without_the_dkms_tree() {
    let root = rolled_back(&["usr/lib/modules", "usr/src", "var/lib/pacman"]);
    assert_eq!(root.kernels(), [release()]);
    root.dkms(&["autoinstall", "-k", &release()]).ok();
    // The newer version is not built from its kept source.
    assert!(root.status().contains(&installed(find("bbswitch").module(), &release())));
    assert_recovers(&root, &release());
}

#[test]
fn dkms_tree_is_rolled_back_without_the_root() {
    let root = rolled_back(&["var/lib/dkms"]);
    let new = find("linux-2").content;
    root.assert_works(&new, "bbswitch");
    assert_recovers(&root, &new);
    let version = find("bbswitch-next").version;
    assert_eq!(root.modinfo(&new, "bbswitch", "testbed"), version.trim_end_matches("-1"));
}

#[test]
fn wiped_dkms_tree_is_filled_again() {
    let root = machine(&[find("bbswitch")]);
    root.shell("find /var/lib/dkms -mindepth 1 -delete").ok();
    root.assert_works(&release(), "bbswitch");
    assert_recovers(&root, &release());
    assert_eq!(root.status(), [installed(find("bbswitch").module(), &release())]);
}

#[test]
fn truncated_object_is_installed_again() {
    let root = machine(&[find("bbswitch")]);
    root.shell(&format!(": >/{}", object(&release(), "bbswitch"))).ok();
    assert_recovers(&root, &release());
}

/// Returns a module in a package of its own that consists of the object `shared`.
fn shared(root: &Root, name: &str) -> PackageFile {
    let module = Recipe::module(name, "1.0").edit("dkms.conf", |conf| {
        conf.replace(&format!("MODULE_NAME[0]=\"{name}\""), "MODULE_NAME[0]=\"shared\"")
    });
    let code = format!(
        "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\nMODULE_INFO(testbed, \"{name}\");\n"
    );
    module.source("Makefile", "obj-m := shared.o\n").source("shared.c", &code).make(root)
}

/// Two modules contain the same object. They are installed and removed in all orders.
#[test]
fn object_of_two_modules_stays_as_long_as_one_of_them() {
    let root = machine(&[]);
    let packages = ["one", "two"].map(|name| shared(&root, name));
    for order in [[0, 1], [1, 0]] {
        let root = root.fork();
        for number in order {
            root.install(std::slice::from_ref(&packages[number])).hooks_succeed();
            root.assert_works(&release(), "shared");
        }
        for [first, last] in [[0, 1], [1, 0]] {
            let root = root.fork();
            root.remove(&[&packages[first].name]).hooks_succeed();
            root.assert_works(&release(), "shared");
            let name = packages[last].module().split('/').next().unwrap();
            assert_eq!(root.modinfo(&release(), "shared", "testbed"), name);
            root.remove(&[&packages[last].name]).hooks_succeed();
            root.assert_absent(&release(), "shared");
            root.assert_settled();
        }
    }
}
