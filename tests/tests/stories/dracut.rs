//! Images of the real dracut are regenerated when modules in them change.

use stories::{Completed, PackageFile, Recipe, Root, find};

use crate::fixture::{kernel, object, release};
use crate::image_fixture::{IMAGE, mask, name_generator, new_images, summary_line, unmask};

/// The image of `linux-lts`.
const LTS_IMAGE: &str = "boot/initramfs-linux-lts.img";

/// A configuration for small images, which are generated quickly.
const SMALL: &str = "dracutmodules+=\" trial \"\ncompress=cat\n";

/// Builds a module that dracut includes in images.
pub(crate) fn zfs(root: &Root, version: &str) -> PackageFile {
    wanted(Recipe::module("zfs", version)).make(root)
}

/// Adds a configuration file that makes dracut include zfs.
pub(crate) fn wanted(recipe: Recipe) -> Recipe {
    recipe.file("usr/lib/dracut/dracut.conf.d/zfs.conf", "add_drivers+=\" zfs \"\n")
}

/// Creates a machine with dracut but without a kernel.
pub(crate) fn empty_machine() -> Root {
    let root = Root::ready_with("dracut");
    root.write("etc/dracut.conf.d/small.conf", SMALL);
    root.install(&[find("dracut")]);
    root
}

/// Creates a machine with a kernel whose image contains zfs.
pub(crate) fn machine() -> Root {
    let root = empty_machine();
    let zfs = zfs(&root, "1.0");
    root.install(&[&kernel("linux", 1)[..], &[zfs]].concat())
        .hooks_succeed()
        .has(&summary_line(&release()))
        .lacks("regenerating");
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
    root
}

/// Returns the list of files in an image.
#[track_caller]
fn files_in(root: &Root, image: &str) -> String {
    root.run("lsinitrd", &[image]).ok().text
}

/// Asserts that an image contains the installed object of zfs.
#[track_caller]
pub(crate) fn assert_holds(root: &Root, image: &str, release: &str) {
    let object = object(release, "zfs");
    let same = format!("lsinitrd --file {object} {image} | cmp - {object}");
    root.shell(&same).ok();
}

/// Upgrades zfs to version 2.0.
pub(crate) fn upgrade_zfs(root: &Root) -> Completed {
    let new = zfs(root, "2.0");
    root.install(&[new])
}

/// Masks hooks during `action`.
pub(crate) fn without_hooks(root: &Root, hooks: &[&str], action: impl FnOnce()) {
    name_generator(root, "dracut");
    hooks.iter().for_each(|hook| mask(root, hook));
    action();
    hooks.iter().for_each(|hook| unmask(root, hook));
}

#[test]
fn dracut_hook_generates_the_image_of_a_new_kernel() {
    let root = machine();
    let new = find("linux-2").content;
    root.install(&kernel("linux", 2))
        .hooks_succeed()
        .has(&summary_line(&new))
        .lacks("regenerating");
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &new);
    root.assert_settled();
}

/// dracut's own hook ignores changes of modules.
#[test]
fn image_is_regenerated_when_its_module_changes_or_is_removed() {
    let root = machine();
    upgrade_zfs(&root)
        .hooks_succeed()
        .has("regenerating /boot/initramfs-linux.img: contains zfs, which changed")
        .has(&summary_line(&release()));
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();

    root.remove(&["zfs-dkms"]).hooks_succeed().has("regenerating");
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    let files = files_in(&root, IMAGE);
    assert!(files.contains("init") && !files.contains("zfs"), "{files}");
    root.assert_settled();
}

#[test]
fn module_in_no_image_causes_no_dracut_run() {
    let root = machine();
    let before = root.bytes(IMAGE);
    let webcam = Recipe::module("webcam", "1.0").make(&root);
    root.install(&[webcam]).hooks_succeed().has("2 modules installed, zfs in");
    root.remove(&["webcam-dkms"]).hooks_succeed();
    assert_eq!(new_images(&root), [""; 0]);
    assert_eq!(root.bytes(IMAGE), before);
    root.assert_settled();
}

#[test]
fn headers_installed_later_add_the_module_to_the_image() {
    let root = empty_machine();
    let [linux, headers] = kernel("linux", 1);
    let zfs = zfs(&root, "1.0");
    root.install(&[linux, zfs]).has("linux-headers");
    assert!(!files_in(&root, IMAGE).contains("zfs.ko"));
    new_images(&root);
    root.install(&[headers])
        .hooks_succeed()
        .has(&format!(
            "regenerating /{IMAGE}: zfs is required by add_drivers in /usr/lib/dracut/dracut.conf.d/zfs.conf"
        ))
        .has(&summary_line(&release()));
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

#[test]
fn only_the_image_with_the_module_is_regenerated() {
    let root = empty_machine();
    let lacks = "[[ $kernel == *-lts ]] || add_drivers+=\" zfs \"\n";
    root.write("etc/dracut.conf.d/zfs.conf", lacks);
    let zfs = zfs(&root, "1.0");
    let kernels = [kernel("linux", 1), kernel("linux-lts", 1)].concat();
    root.install(&[&kernels[..], &[zfs]].concat()).hooks_succeed();
    assert_holds(&root, IMAGE, &release());
    assert!(!files_in(&root, LTS_IMAGE).contains("zfs.ko"));
    let before = root.bytes(LTS_IMAGE);
    new_images(&root);

    upgrade_zfs(&root).hooks_succeed().has(&summary_line(&release()));
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    assert_eq!(root.bytes(LTS_IMAGE), before);
    root.assert_settled();
}

/// Upgrades zfs with a faulty version of `file`, then regenerates the image with the original file.
/// `said` are parts of the messages.
fn upgrade_with_bad_dracut(root: &Root, file: &str, text: &str, said: [&str; 2]) {
    let (good, before) = (root.read(file), root.bytes(IMAGE));
    root.write(file, text);
    upgrade_zfs(root)
        .hooks_fail()
        .has(said[0])
        .has(said[1])
        .has("1 module installed; outdated: /boot/initramfs-linux.img; run: dkms initramfs");
    assert_eq!(new_images(root), [format!("/{IMAGE}")]);
    assert!(root.bytes(IMAGE) == before);

    root.write(file, &good);
    root.dkms(&["initramfs"]).ok().has(&summary_line(&release()));
    assert_holds(root, IMAGE, &release());
    root.assert_settled();
}

#[test]
fn image_is_kept_if_dracut_fails_and_restored_if_it_is_truncated() {
    let machine = machine();
    let conf = SMALL.replace("cat", "false");
    let said = [
        "/boot/initramfs-linux.img: not regenerated: the generator failed",
        "(exit status 1): dracut[E]: ",
    ];
    upgrade_with_bad_dracut(&machine.fork(), "etc/dracut.conf.d/small.conf", &conf, said);

    // A disk error truncates the image.
    let dracut = machine.read("usr/bin/dracut").replace("exec ", "");
    let half = dracut + "truncate --size=100000 \"$image\"\n";
    let said = ["; restored the previous image", "lsinitrd: cannot list"];
    upgrade_with_bad_dracut(&machine.fork(), "usr/bin/dracut", &half, said);
}

/// There is no image to restore, because the old one was removed with its kernel.
#[test]
fn missing_image_of_a_new_kernel_is_reported_until_generated() {
    let root = machine();
    let new = find("linux-2").content;
    root.write("etc/dracut.conf.d/small.conf", &SMALL.replace("cat", "false"));
    root.install(&kernel("linux", 2))
        .hooks_fail()
        .has("regenerating /boot/initramfs-linux.img: missing")
        .has("/boot/initramfs-linux.img: the generator did not create it; no copy to restore")
        .has("1 module installed; missing images: /boot/initramfs-linux.img; run: dkms initramfs");
    // By dracut's hook, and again by ours.
    assert_eq!(new_images(&root).len(), 2);

    root.write("etc/dracut.conf.d/small.conf", SMALL);
    root.dkms(&["initramfs"]).ok().has(&summary_line(&new));
    assert_holds(&root, IMAGE, &new);
    root.assert_settled();
}

/// dracut writes a new file before it replaces the image, so /boot needs space for both.
#[test]
fn full_boot_partition_is_detected_before_dracut_runs() {
    let root = machine();
    let before = root.bytes(IMAGE);
    root.move_to_full_disk("boot", 2048);
    upgrade_zfs(&root)
        .hooks_fail()
        .has(
            "/boot/initramfs-linux.img: not regenerated: not enough space in /boot: 2048 KiB free,",
        )
        .has("run: dkms initramfs");
    assert_eq!(new_images(&root), [""; 0]);
    assert!(root.bytes(IMAGE) == before);
    assert_eq!(root.names("boot"), ["initramfs-linux.img", "vmlinuz-linux"]);

    root.resize_disk("boot", 128 * 1024);
    root.dkms(&["initramfs"]).ok().has(&summary_line(&release()));
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

/// The transaction is interrupted between the hook that builds and those that regenerate images.
#[test]
fn interrupted_image_update_is_finished_by_a_command_or_at_boot() {
    let machine = machine();
    let hooks = ["90-dracut-install", "95-dkms-verify"];

    let module = machine.fork();
    without_hooks(&module, &hooks, || drop(upgrade_zfs(&module).hooks_succeed()));
    assert_eq!(module.pending().len(), 1, "{:?}", module.pending());
    module
        .dkms(&["initramfs", "--dry-run"])
        .ok()
        .has("/boot/initramfs-linux.img: needs to be regenerated: contains zfs, which changed")
        .has(&format!("would run: dracut --force --kver {} /{IMAGE}", release()));
    assert_eq!(new_images(&module), [""; 0]);
    module.dkms(&["initramfs"]).ok().has(&summary_line(&release()));
    assert_eq!(new_images(&module), [format!("/{IMAGE}")]);
    assert_holds(&module, IMAGE, &release());
    module.assert_settled();

    // The old image was removed with its kernel, and only dracut's hook copies the new kernel.
    let kernels = machine.fork();
    let new = find("linux-2").content;
    without_hooks(&kernels, &hooks, || drop(kernels.install(&kernel("linux", 2)).hooks_succeed()));
    assert!(!kernels.exists(IMAGE) && !kernels.exists("boot/vmlinuz-linux"));
    kernels.boot_unit().ok();
    assert!(kernels.exists("boot/vmlinuz-linux"));
    assert_eq!(new_images(&kernels), [format!("/{IMAGE}")]);
    assert_holds(&kernels, IMAGE, &new);
    kernels.assert_settled();
}
