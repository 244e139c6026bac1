//! A real kernel boots with the image of a transaction and loads the module from it.

use stories::{Recipe, Root, find};

use crate::dracut::{assert_holds, empty_machine, wanted};
use crate::fixture::kernel;
use crate::image_fixture::{IMAGE, new_images};

/// Like the real zfs, it depends on a second object of its package and on a kernel module.
const ZFS: &str = r#"
#include <linux/device-mapper.h>
extern int spl_is_loaded(void);
static int __init zfs_init(void)
{
    pr_info("zfs: %ps\n", dm_device_name);
    return spl_is_loaded();
}
module_init(zfs_init);
"#;

const SPL: &str = r#"
#include <linux/module.h>
MODULE_LICENSE("GPL");
extern int spl_is_loaded(void);
int spl_is_loaded(void) { return 0; }
EXPORT_SYMBOL(spl_is_loaded);
"#;

/// A module that dracut includes in images.
fn zfs(version: &str) -> Recipe {
    wanted(Recipe::module("zfs", version))
        .conf_line("BUILT_MODULE_NAME[1]=spl DEST_MODULE_LOCATION[1]=/extra")
        .edit("Makefile", |_| "obj-m := zfs.o spl.o\n".into())
        .edit("zfs.c", |code| code + ZFS)
        .source("spl.c", SPL)
}

/// Boots the machine and asserts that its init loads this version of zfs in this kernel.
#[track_caller]
fn assert_boots(root: &Root, release: &str, version: &str) {
    assert_holds(root, IMAGE, release);
    let console = root.boot("linux", "trial=zfs").ok().text;
    let lines: Vec<&str> =
        console.lines().filter_map(|line| Some(line.split_once("trial: ")?.1.trim_end())).collect();
    let vermagic = root.modinfo(release, "zfs", "vermagic");
    assert!(vermagic.starts_with(&format!("{release} ")), "{vermagic}");
    let want = [
        format!("running kernel: {release}"),
        format!("zfs: loaded version: {version}"),
        format!("zfs: version of the object: {version}"),
        format!("zfs: vermagic: {vermagic}"),
    ];
    assert_eq!(lines, want, "console:\n{console}");
}

/// The kernel is upgraded, then the module, and then the module to a version that fails to build.
#[test]
fn machine_boots_with_the_module_of_each_transaction() {
    let root = empty_machine();
    let zfs_1 = zfs("1.0").make(&root);
    root.install(&[&kernel("linux-true", 1)[..], &[zfs_1]].concat()).hooks_succeed();
    let release = find("linux-true-2").content;
    root.install(&kernel("linux-true", 2)).hooks_succeed();
    assert_boots(&root, &release, "1.0");

    let zfs_2 = zfs("2.0").make(&root);
    root.install(&[zfs_2]).hooks_succeed();
    assert_boots(&root, &release, "2.0");

    new_images(&root);
    let broken = zfs("3.0").edit("zfs.c", |code| code + "#error broken\n").make(&root);
    root.install(&[broken]).hooks_fail().has("stays installed");
    assert_eq!(new_images(&root), [""; 0]);
    assert_boots(&root, &release, "2.0");
}
