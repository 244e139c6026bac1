//! The images follow the modules where the real dracut makes them.

use stories::{Completed, PackageFile, Recipe, Root, find};

use crate::fixture::{kernel, object, release};
use crate::image_fixture::{IMAGE, kernel_line, made, mask, unmask};

/// The image of the package `linux-lts`.
const LTS_IMAGE: &str = "boot/initramfs-linux-lts.img";

/// Images of a few files, so that one is made in a moment.
const SMALL: &str = "dracutmodules+=\" trial \"\ncompress=cat\n";

/// A module that images hold.
pub(crate) fn zfs(root: &Root, version: &str) -> PackageFile {
    wanted(Recipe::module("zfs", version)).make(root)
}

/// A module whose package makes dracut put it into images.
pub(crate) fn wanted(recipe: Recipe) -> Recipe {
    recipe.file("usr/lib/dracut/dracut.conf.d/zfs.conf", "add_drivers+=\" zfs \"\n")
}

/// A machine with dracut, and no kernel yet.
pub(crate) fn empty_machine() -> Root {
    let root = Root::ready_with("dracut");
    root.write("etc/dracut.conf.d/small.conf", SMALL);
    root.install(&[find("dracut")]);
    root
}

/// A machine with a kernel whose image holds the module.
fn machine() -> Root {
    let root = empty_machine();
    let zfs = zfs(&root, "1.0");
    root.install(&[&kernel("linux", 1)[..], &[zfs]].concat())
        .hooks_succeed()
        .has(&kernel_line(&release()))
        .lacks("regenerating");
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
    root
}

/// The files in an image.
#[track_caller]
fn files_in(root: &Root, image: &str) -> String {
    root.run("lsinitrd", &[image]).ok().text
}

/// Asserts that an image holds the very object that stands in a kernel's directory.
#[track_caller]
pub(crate) fn assert_holds(root: &Root, image: &str, release: &str) {
    let object = object(release, "zfs");
    let same = format!("lsinitrd --file {object} {image} | cmp - {object}");
    root.shell(&same).ok();
}

/// Installs the next version of the module.
pub(crate) fn bump(root: &Root) -> Completed {
    let new = zfs(root, "2.0");
    root.install(&[new])
}

/// Hides hooks from pacman while something is done.
fn without_hooks(root: &Root, hooks: &[&str], deed: impl FnOnce()) {
    hooks.iter().for_each(|hook| mask(root, hook));
    deed();
    hooks.iter().for_each(|hook| unmask(root, hook));
}

#[test]
fn dracuts_own_hook_makes_the_image_of_a_new_kernel_and_we_do_not() {
    let root = machine();
    let new = find("linux-2").content;
    root.install(&kernel("linux", 2)).hooks_succeed().has(&kernel_line(&new)).lacks("regenerating");
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &new);
    root.assert_settled();
}

/// dracut's hook does not look at modules: without us the image would keep the old one.
#[test]
fn dracut_is_called_when_a_module_in_its_image_changes_or_leaves() {
    let root = machine();
    bump(&root)
        .hooks_succeed()
        .has("regenerating /boot/initramfs-linux.img: it holds zfs")
        .has(&kernel_line(&release()));
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();

    root.remove(&["zfs-dkms"]).hooks_succeed().has("regenerating");
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    let files = files_in(&root, IMAGE);
    assert!(files.contains("init") && !files.contains("zfs"), "{files}");
    root.assert_settled();
}

#[test]
fn dracut_does_not_run_for_a_module_that_its_image_does_not_hold() {
    let root = machine();
    let before = root.bytes(IMAGE);
    let webcam = Recipe::module("webcam", "1.0").make(&root);
    root.install(&[webcam]).hooks_succeed().has("2 modules installed, zfs in");
    root.remove(&["webcam-dkms"]).hooks_succeed();
    assert_eq!(made(&root), [""; 0]);
    assert_eq!(root.bytes(IMAGE), before);
    root.assert_settled();
}

#[test]
fn headers_that_come_later_bring_the_module_into_the_image() {
    let root = empty_machine();
    let [linux, headers] = kernel("linux", 1);
    let zfs = zfs(&root, "1.0");
    root.install(&[linux, zfs]).has("linux-headers");
    assert!(!files_in(&root, IMAGE).contains("zfs.ko"));
    made(&root);
    root.install(&[headers])
        .hooks_succeed()
        .has("regenerating /boot/initramfs-linux.img: zfs is in add_drivers of dracut.conf")
        .has(&kernel_line(&release()));
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

#[test]
fn of_two_kernels_only_the_image_with_the_module_is_made_again() {
    let root = empty_machine();
    let lacks = "[[ $kernel == *-lts ]] || add_drivers+=\" zfs \"\n";
    root.write("etc/dracut.conf.d/zfs.conf", lacks);
    let zfs = zfs(&root, "1.0");
    let kernels = [kernel("linux", 1), kernel("linux-lts", 1)].concat();
    root.install(&[&kernels[..], &[zfs]].concat()).hooks_succeed();
    assert_holds(&root, IMAGE, &release());
    assert!(!files_in(&root, LTS_IMAGE).contains("zfs.ko"));
    let before = root.bytes(LTS_IMAGE);
    made(&root);

    bump(&root).hooks_succeed().has(&kernel_line(&release()));
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    assert_eq!(root.bytes(LTS_IMAGE), before);
    root.assert_settled();
}

/// Upgrades the module while dracut is not in order, then once it is.
fn upgrade_with_bad_dracut(root: &Root, file: &str, text: &str, why: &str) {
    let (good, before) = (root.read(file), root.bytes(IMAGE));
    root.write(file, text);
    bump(root)
        .hooks_fail()
        .has("; restored the previous image")
        .has(why)
        .has("1 module installed; outdated: /boot/initramfs-linux.img; run: dkms initramfs");
    assert_eq!(made(root), [format!("/{IMAGE}")]);
    assert!(root.bytes(IMAGE) == before);

    root.write(file, &good);
    root.dkms(&["initramfs"]).ok().has(&kernel_line(&release()));
    assert_holds(root, IMAGE, &release());
    root.assert_settled();
}

#[test]
fn the_old_image_is_there_after_dracut_failed_or_made_half_of_one() {
    let machine = machine();
    let conf = SMALL.replace("cat", "false");
    let why = "failed (exit status 1): dracut[E]: ";
    upgrade_with_bad_dracut(&machine.fork(), "etc/dracut.conf.d/small.conf", &conf, why);

    // As where a disk loses what was written.
    let dracut = machine.read("usr/bin/dracut").replace("exec ", "");
    let half = dracut + "truncate --size=100000 \"$image\"\n";
    upgrade_with_bad_dracut(&machine.fork(), "usr/bin/dracut", &half, "lsinitrd cannot list");
}

/// There is no image to restore: the old one was removed with its kernel.
#[test]
fn a_new_kernel_whose_image_cannot_be_made_says_so_until_it_is() {
    let root = machine();
    let new = find("linux-2").content;
    root.write("etc/dracut.conf.d/small.conf", &SMALL.replace("cat", "false"));
    root.install(&kernel("linux", 2))
        .hooks_fail()
        .has("regenerating /boot/initramfs-linux.img: it is missing")
        .has(
            "/boot/initramfs-linux.img: its generator did not create it; there is no copy to restore",
        )
        .has("1 module installed; outdated: /boot/initramfs-linux.img; run: dkms initramfs");
    // Once by its own hook, and once more by us.
    assert_eq!(made(&root).len(), 2);

    root.write("etc/dracut.conf.d/small.conf", SMALL);
    root.dkms(&["initramfs"]).ok().has(&kernel_line(&new));
    assert_holds(&root, IMAGE, &new);
    root.assert_settled();
}

/// dracut writes beside the old image, so there must be room for two.
#[test]
fn a_full_boot_partition_is_noticed_before_dracut_is_called() {
    let root = machine();
    let before = root.bytes(IMAGE);
    root.move_to_full_disk("boot", 2048);
    bump(&root)
        .hooks_fail()
        .has(
            "/boot/initramfs-linux.img: not regenerated: not enough space in /boot: 2048 KiB free,",
        )
        .has("run: dkms initramfs");
    assert_eq!(made(&root), [""; 0]);
    assert!(root.bytes(IMAGE) == before);
    assert_eq!(root.names("boot"), ["initramfs-linux.img", "vmlinuz-linux"]);

    root.resize_disk("boot", 128 * 1024);
    root.dkms(&["initramfs"]).ok().has(&kernel_line(&release()));
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

/// Killed after the hook that builds and before those that regenerate.
#[test]
fn an_interrupted_transactions_image_is_made_by_whatever_comes_next() {
    let machine = machine();
    let hooks = ["90-dracut-install", "95-dkms-verify"];

    let module = machine.fork();
    without_hooks(&module, &hooks, || drop(bump(&module).hooks_succeed()));
    assert_eq!(module.pending().len(), 1, "{:?}", module.pending());
    module
        .dkms(&["initramfs", "--dry-run"])
        .ok()
        .has("/boot/initramfs-linux.img: needs to be regenerated: it holds zfs")
        .has(&format!("would run: dracut --force --kver {} /{IMAGE}", release()));
    assert_eq!(made(&module), [""; 0]);
    module.dkms(&["initramfs"]).ok().has(&kernel_line(&release()));
    assert_eq!(made(&module), [format!("/{IMAGE}")]);
    assert_holds(&module, IMAGE, &release());
    module.assert_settled();

    // The old kernel took its image with it, and only dracut's own hook copies the new one.
    let kernels = machine.fork();
    let new = find("linux-2").content;
    without_hooks(&kernels, &hooks, || drop(kernels.install(&kernel("linux", 2)).hooks_succeed()));
    assert!(!kernels.exists(IMAGE) && !kernels.exists("boot/vmlinuz-linux"));
    kernels.boot_unit().ok();
    assert!(kernels.exists("boot/vmlinuz-linux"));
    assert_eq!(made(&kernels), [format!("/{IMAGE}")]);
    assert_holds(&kernels, IMAGE, &new);
    kernels.assert_settled();
}
