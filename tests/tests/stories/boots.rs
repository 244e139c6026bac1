//! A real kernel boots with the image of a transaction and loads the module from it.

use std::thread::sleep;
use std::time::Duration;

use stories::{Recipe, Root, find};

use crate::dracut::{assert_holds, empty_machine, wanted, without_hooks};
use crate::fixture::kernel;
use crate::image_fixture::{IMAGE, new_images};
use crate::preflight_fixture::broken_for;

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
    assert_eq!(root.dkms(&["verify"]).ok().text, "");
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

/// The preflight aborts an upgrade to a kernel for which zfs does not build.
#[test]
fn machine_boots_its_old_kernel_after_an_aborted_upgrade() {
    let root = empty_machine();
    let [old, new] = ["linux-true-1", "linux-true-2"].map(|alias| find(alias).content);
    let zfs = broken_for(&new, zfs("1.0"), "zfs.c").make(&root);
    root.install(&[&kernel("linux-true", 1)[..], &[zfs]].concat()).hooks_succeed();
    root.unmask_preflight();
    let packages = kernel("linux-true", 2);
    let upgrade = root.pacman(&["-U", &packages[0].file, &packages[1].file]).exits(1);
    upgrade
        .has("note: this machine needs zfs, which is in /boot/initramfs-linux.img")
        .has("The transaction is aborted; nothing has been changed.");
    assert_boots(&root, &old, "1.0");
}

/// Returns a machine with a kernel whose image contains zfs 1.0, and the text of its dracut without
/// the final `exec`.
fn machine_with_image() -> (Root, String) {
    let root = empty_machine();
    let zfs_1 = zfs("1.0").make(&root);
    root.install(&[&kernel("linux-true", 1)[..], &[zfs_1]].concat()).hooks_succeed();
    let dracut = root.read("usr/bin/dracut").replace("exec ", "");
    (root, dracut)
}

/// dracut fails although it has generated the image, then it truncates the image, and then
/// `dkms initramfs` receives a signal while it runs.
#[test]
fn machine_boots_with_an_image_that_its_generator_left() {
    let (machine, dracut) = machine_with_image();
    let release = find("linux-true-1").content;

    let failed = machine.fork();
    failed.write("usr/bin/dracut", &format!("{dracut}exit 1\n"));
    let zfs_2 = zfs("2.0").make(&failed);
    failed.install(&[zfs_2]).hooks_succeed().has("the images are complete");
    assert_boots(&failed, &release, "2.0");

    let truncated = machine.fork();
    truncated.write("usr/bin/dracut", &format!("{dracut}truncate --size=100000 \"$image\"\n"));
    let zfs_2 = zfs("2.0").make(&truncated);
    truncated.install(&[zfs_2]).hooks_fail().has("restored the previous image");
    truncated.boot("linux", "trial=zfs").ok().has("trial: zfs: loaded version: 1.0");

    let stopped = machine.fork();
    let zfs_2 = zfs("2.0").make(&stopped);
    without_hooks(&stopped, &["95-dkms-verify"], || {
        stopped.install(&[zfs_2]).hooks_succeed();
    });
    let slow = dracut.replacen('\n', "\ntouch /srv/writing; sleep 2\n", 1);
    stopped.write("usr/bin/dracut", &slow);
    let dkms = stopped.start("/usr/bin/dkms", &["initramfs"]);
    while !stopped.exists("srv/writing") {
        sleep(Duration::from_millis(10));
    }
    stopped.run("kill", &["-TERM", &dkms.id().to_string()]).ok();
    dkms.finish().ok();
    stopped.assert_settled();
    assert_boots(&stopped, &release, "2.0");
}
