//! The machine boots: a real kernel starts from the image that a transaction made, and loads the module in it.

use stories::{Recipe, Root, find};

use crate::dracut::{assert_holds, empty_machine, wanted};
use crate::fixture::kernel;
use crate::image_fixture::{IMAGE, made};

/// Like the real one: it stands on a second object of its package, and on a module of the kernel's own.
const ZFS: &str = r#"
#include <linux/device-mapper.h>
extern int spl_is_there(void);
static int __init zfs_init(void)
{
    pr_info("zfs: %ps\n", dm_device_name);
    return spl_is_there();
}
module_init(zfs_init);
"#;

const SPL: &str = r#"
#include <linux/module.h>
MODULE_LICENSE("GPL");
extern int spl_is_there(void);
int spl_is_there(void) { return 0; }
EXPORT_SYMBOL(spl_is_there);
"#;

/// A module that dracut puts into images.
fn zfs(version: &str) -> Recipe {
    wanted(Recipe::module("zfs", version))
        .conf_line("BUILT_MODULE_NAME[1]=spl DEST_MODULE_LOCATION[1]=/extra")
        .edit("Makefile", |_| "obj-m := zfs.o spl.o\n".into())
        .edit("zfs.c", |code| code + ZFS)
        .source("spl.c", SPL)
}

/// Boots the machine, and asserts that its init has loaded this version for this kernel.
#[track_caller]
fn assert_boots(root: &Root, release: &str, version: &str) {
    assert_holds(root, IMAGE, release);
    let console = root.boot("linux", "trial=zfs").ok().text;
    let said: Vec<&str> =
        console.lines().filter_map(|line| Some(line.split_once("trial: ")?.1.trim_end())).collect();
    let vermagic = root.modinfo(release, "zfs", "vermagic");
    assert!(vermagic.starts_with(&format!("{release} ")), "{vermagic}");
    let want = [
        format!("the kernel is {release}"),
        format!("zfs is loaded in version {version}"),
        format!("its object has version {version}"),
        format!("and vermagic {vermagic}"),
    ];
    assert_eq!(said, want, "the console says:\n{console}");
}

/// From one kernel of Debian's to the next, each under the release it was compiled with: then upgrades of the module
/// alone, to one that builds and to one that does not.
#[test]
fn after_each_transaction_the_machine_boots_with_the_module_it_brought() {
    let root = empty_machine();
    let zfs_1 = zfs("1.0").make(&root);
    root.install(&[&kernel("linux-true", 1)[..], &[zfs_1]].concat()).hooks_succeed();
    let release = find("linux-true-2").content;
    root.install(&kernel("linux-true", 2)).hooks_succeed();
    assert_boots(&root, &release, "1.0");

    let zfs_2 = zfs("2.0").make(&root);
    root.install(&[zfs_2]).hooks_succeed();
    assert_boots(&root, &release, "2.0");

    made(&root);
    let broken = zfs("3.0").edit("zfs.c", |code| code + "#error broken\n").make(&root);
    root.install(&[broken]).hooks_fail().has("stays installed");
    assert_eq!(made(&root), [""; 0]);
    assert_boots(&root, &release, "2.0");
}
