//! Initramfs images are regenerated, once, when the modules in them change.

use stories::{Recipe, find};

use crate::fixture::{kernel, release};
use crate::image_fixture::{IMAGE, mask, new_images, summary_line, unmask};
use crate::mkinitcpio::{STOCK, assert_holds, machine, upgrade_zfs};

/// Only a module is upgraded. mkinitcpio's hook has already regenerated the image.
#[test]
fn mkinitcpio_hook_regenerates_and_ours_does_not() {
    let root = machine();
    upgrade_zfs(&root).hooks_succeed().has(&summary_line(&release())).lacks("regenerating");
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
    assert!(!root.exists("var/lib/dkms/.images"));
}

#[test]
fn only_images_with_changed_modules_are_regenerated() {
    let preset = "ALL_kver=/boot/vmlinuz-linux-lts\nALL_config=/etc/lts.conf\nPRESETS=(default)\n\
                  default_image=/boot/initramfs-linux-lts.img\n";
    let root = machine();
    root.write("etc/lts.conf", "HOOKS=(base)\n");
    root.write("etc/mkinitcpio.d/linux-lts.preset", preset);
    root.install(&kernel("linux-lts", 1)).hooks_succeed();
    assert_eq!(new_images(&root), ["/boot/initramfs-linux-lts.img"]);
    let lts = root.bytes("boot/initramfs-linux-lts.img");

    mask(&root, STOCK);
    upgrade_zfs(&root)
        .hooks_succeed()
        .has("regenerating /boot/initramfs-linux.img: contains zfs, which changed")
        .has(&summary_line(&release()));
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    assert_eq!(root.bytes("boot/initramfs-linux-lts.img"), lts);
    root.assert_settled();
}

/// A preset generates two images, and only the configuration of the first includes the module.
#[test]
fn image_is_regenerated_for_a_module_in_its_configuration() {
    let preset = "ALL_kver=/boot/vmlinuz-linux\nPRESETS=(default fallback)\n\
                  default_image=/boot/initramfs-linux.img\nfallback_image=/boot/fallback.img\n\
                  fallback_config=/etc/fallback.conf\n";
    let root = machine();
    root.write("etc/mkinitcpio.d/linux.preset", preset);
    root.write("etc/fallback.conf", "HOOKS=(base)\n");
    root.remove(&["zfs-dkms"]);
    root.shell("mkinitcpio -p linux");
    new_images(&root);
    mask(&root, STOCK);
    upgrade_zfs(&root)
        .hooks_succeed()
        .has(
            "regenerating /boot/initramfs-linux.img: zfs is required by HOOKS in /etc/mkinitcpio.conf",
        )
        .lacks("regenerating /boot/fallback.img")
        .has(&summary_line(&release()));
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

#[test]
fn module_in_no_image_causes_no_regeneration() {
    let root = machine();
    mask(&root, STOCK);
    let before = root.bytes(IMAGE);
    let webcam = Recipe::module("webcam", "1.0").make(&root);
    root.install(&[webcam]).hooks_succeed().has("2 modules installed, zfs in");
    root.remove(&["webcam-dkms"]).hooks_succeed();
    assert_eq!(new_images(&root), [""; 0]);
    assert_eq!(root.bytes(IMAGE), before);
    root.assert_settled();
}

/// mkinitcpio fails and replaces the image with one that lacks a module.
#[test]
fn image_is_restored_if_its_generator_loses_a_module() {
    let root = machine();
    mask(&root, STOCK);
    let before = root.bytes(IMAGE);
    root.write("etc/mkinitcpio.conf", "MODULES=(gone)\nHOOKS=(base)\n");
    upgrade_zfs(&root)
        .hooks_fail()
        .has("/boot/initramfs-linux.img: generated without zfs; restored the previous image")
        .has("module not found: 'gone'")
        .has("1 module installed; outdated: /boot/initramfs-linux.img; run: dkms initramfs");
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_eq!(root.bytes(IMAGE), before);
    assert!(!root.pending().is_empty(), "the image is not pending");

    // Removing alpm-dkms now leaves nothing behind.
    let left = root.fork();
    left.remove(&["zfs-dkms", "alpm-dkms"]);
    assert!(!left.exists("var/lib/dkms"), "{:?}", left.snapshot("var/lib/dkms").paths());
    drop(left);

    root.write("etc/mkinitcpio.conf", "HOOKS=(base zfs)\n");
    root.dkms(&["initramfs"]).ok().has(&summary_line(&release()));
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
    root.dkms(&["initramfs"]).ok().has("no images to check");
}

#[test]
fn kernel_upgrade_generates_the_image_once() {
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

/// The transaction is interrupted between the hook that builds and those that regenerate images.
#[test]
fn pending_images_are_regenerated_by_the_next_command_boot_or_hook() {
    let root = machine();
    let hooks = [STOCK, "95-dkms-verify"];
    hooks.iter().for_each(|hook| mask(&root, hook));
    let before = root.bytes(IMAGE);
    upgrade_zfs(&root).hooks_succeed();
    hooks.iter().for_each(|hook| unmask(&root, hook));
    assert_eq!(root.pending().len(), 1, "{:?}", root.pending());

    let by_command = root.fork();
    by_command
        .dkms(&["initramfs", "--dry-run"])
        .ok()
        .has("/boot/initramfs-linux.img: needs to be regenerated: contains zfs, which changed")
        .has("would run: mkinitcpio -p linux");
    assert_eq!((by_command.bytes(IMAGE), new_images(&by_command)), (before, vec![]));
    by_command.dkms(&["initramfs"]).ok().has(&summary_line(&release()));
    let at_boot = root.fork();
    at_boot.boot_unit().ok();
    let by_hook = root.fork();
    mask(&by_hook, STOCK);
    let other = Recipe::module("webcam", "1.0").make(&by_hook);
    by_hook.install(&[other]).hooks_succeed();
    for root in [by_command, at_boot, by_hook] {
        assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
        assert_holds(&root, IMAGE, &release());
        root.assert_settled();
    }
}

/// Before the transaction mkinitcpio removed the old kernel's copy, image and preset, which only
/// mkinitcpio's own hook creates again.
#[test]
fn interrupted_kernel_upgrade_is_finished_at_boot() {
    let root = machine();
    let hooks = ["70-dkms-install", "71-dkms-remove", STOCK, "95-dkms-verify"];
    hooks.iter().for_each(|hook| mask(&root, hook));
    root.install(&kernel("linux", 2));
    hooks.iter().for_each(|hook| unmask(&root, hook));
    assert!(!root.exists(IMAGE) && !root.exists("boot/vmlinuz-linux"));
    root.boot_unit().ok();
    assert!(root.exists("boot/vmlinuz-linux"));
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &find("linux-2").content);
    root.assert_settled();
}

#[test]
fn image_is_kept_if_the_new_version_fails_to_build() {
    let root = machine();
    mask(&root, STOCK);
    let before = root.bytes(IMAGE);
    let broken = Recipe::module("zfs", "2.0").edit("zfs.c", |code| code + "#error broken\n");
    root.install(&[broken.make(&root)]).hooks_fail().has("stays installed");
    assert_eq!((new_images(&root), root.bytes(IMAGE)), (vec![], before));
    assert_holds(&root, IMAGE, &release());
}

/// A `dkms` command reports an outdated image, and regenerates it only with `mode = "auto"`.
#[test]
fn command_reports_outdated_images() {
    let root = machine();
    let zfs = ["zfs/1.0", "-k", &release()];
    root.dkms(&[&["uninstall"], &zfs[..]].concat())
        .ok()
        .has("/boot/initramfs-linux.img: needs to be regenerated: contains zfs, which changed")
        .has("run: dkms initramfs");
    assert_eq!(new_images(&root), [""; 0]);
    root.write("etc/dkms/alpm-dkms.toml", "[initramfs]\nmode = \"auto\"\n");
    root.dkms(&[&["install"], &zfs[..]].concat()).ok().has(&summary_line(&release()));
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}
