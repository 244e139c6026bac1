//! Modules change, and the initramfs images that hold them follow: once, and no others.

use stories::{Recipe, find};

use crate::fixture::{kernel, release};
use crate::image_fixture::{IMAGE, kernel_line, made, mask, unmask};
use crate::mkinitcpio::{STOCK, assert_holds, bump, machine};

/// A module is upgraded and the kernel is not: as often as with dkms, which is once.
#[test]
fn what_mkinitcpios_own_hook_regenerates_is_not_done_again() {
    let root = machine();
    bump(&root).hooks_succeed().has(&kernel_line(&release())).lacks("regenerating");
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
    assert!(!root.exists("var/lib/dkms/.images"));
}

#[test]
fn what_it_leaves_alone_is_regenerated_and_no_other_image_is() {
    let preset = "ALL_kver=/boot/vmlinuz-linux-lts\nALL_config=/etc/lts.conf\nPRESETS=(default)\n\
                  default_image=/boot/initramfs-linux-lts.img\n";
    let root = machine();
    root.write("etc/lts.conf", "HOOKS=(base)\n");
    root.write("etc/mkinitcpio.d/linux-lts.preset", preset);
    root.install(&kernel("linux-lts", 1)).hooks_succeed();
    assert_eq!(made(&root), ["/boot/initramfs-linux-lts.img"]);
    let lts = root.bytes("boot/initramfs-linux-lts.img");

    mask(&root, STOCK);
    bump(&root)
        .hooks_succeed()
        .has("regenerating /boot/initramfs-linux.img: it holds zfs")
        .has(&kernel_line(&release()));
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    assert_eq!(root.bytes("boot/initramfs-linux-lts.img"), lts);
    root.assert_settled();
}

/// One preset makes two images, and only that of the usual configuration is to hold the module.
#[test]
fn an_image_gets_what_its_own_configuration_names() {
    let preset = "ALL_kver=/boot/vmlinuz-linux\nPRESETS=(default fallback)\n\
                  default_image=/boot/initramfs-linux.img\nfallback_image=/boot/fallback.img\n\
                  fallback_config=/etc/fallback.conf\n";
    let root = machine();
    root.write("etc/mkinitcpio.d/linux.preset", preset);
    root.write("etc/fallback.conf", "HOOKS=(base)\n");
    root.remove(&["zfs-dkms"]);
    root.shell("mkinitcpio -p linux");
    made(&root);
    mask(&root, STOCK);
    bump(&root)
        .hooks_succeed()
        .has("regenerating /boot/initramfs-linux.img: zfs is in HOOKS of mkinitcpio.conf")
        .lacks("regenerating /boot/fallback.img")
        .has(&kernel_line(&release()));
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

#[test]
fn a_module_that_no_image_holds_costs_no_regeneration() {
    let root = machine();
    mask(&root, STOCK);
    let before = root.bytes(IMAGE);
    let webcam = Recipe::module("webcam", "1.0").make(&root);
    root.install(&[webcam]).hooks_succeed().has("2 modules installed, zfs in");
    root.remove(&["webcam-dkms"]).hooks_succeed();
    assert_eq!(made(&root), [""; 0]);
    assert_eq!(root.bytes(IMAGE), before);
    root.assert_settled();
}

/// mkinitcpio fails, and has replaced the image all the same.
#[test]
fn a_good_image_is_restored_when_its_generator_fails() {
    let root = machine();
    mask(&root, STOCK);
    let before = root.bytes(IMAGE);
    root.write("etc/mkinitcpio.conf", "MODULES=(gone)\nHOOKS=(base zfs)\n");
    bump(&root)
        .hooks_fail()
        .has("/boot/initramfs-linux.img: its generator failed; restored the previous image")
        .has("module not found: 'gone'")
        .has("1 module installed; outdated: /boot/initramfs-linux.img; run: dkms initramfs");
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_eq!(root.bytes(IMAGE), before);
    assert!(!root.pending().is_empty(), "it is no longer pending");

    // Nothing of that stays if alpm-dkms is removed first.
    let left = root.fork();
    left.remove(&["zfs-dkms", "alpm-dkms"]);
    assert!(!left.exists("var/lib/dkms"), "{:?}", left.picture("var/lib/dkms").paths());
    drop(left);

    root.write("etc/mkinitcpio.conf", "HOOKS=(base zfs)\n");
    root.dkms(&["initramfs"]).ok().has(&kernel_line(&release()));
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
    root.dkms(&["initramfs"]).ok().has("all images are up to date");
}

#[test]
fn after_a_kernel_bump_its_image_is_made_once() {
    let root = machine();
    let new = find("linux-2").content;
    root.install(&kernel("linux", 2)).hooks_succeed().has(&kernel_line(&new)).lacks("regenerating");
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &new);
    root.assert_settled();
}

/// Killed between the hook that builds and those that regenerate.
#[test]
fn pending_images_are_regenerated_by_the_next_command_boot_or_hook() {
    let root = machine();
    let hooks = [STOCK, "90-mkinitcpio-dkms", "95-dkms-verify"];
    hooks.iter().for_each(|hook| mask(&root, hook));
    let before = root.bytes(IMAGE);
    bump(&root).hooks_succeed();
    hooks.iter().for_each(|hook| unmask(&root, hook));
    assert_eq!(root.pending().len(), 1, "{:?}", root.pending());

    let by_command = root.fork();
    by_command
        .dkms(&["initramfs", "--dry-run"])
        .ok()
        .has("/boot/initramfs-linux.img: needs to be regenerated: it holds zfs")
        .has("would run: mkinitcpio -p linux");
    assert_eq!((by_command.bytes(IMAGE), made(&by_command)), (before, vec![]));
    by_command.dkms(&["initramfs"]).ok().has(&kernel_line(&release()));
    let at_boot = root.fork();
    at_boot.boot_unit().ok();
    let by_hook = root.fork();
    mask(&by_hook, STOCK);
    let other = Recipe::module("webcam", "1.0").make(&by_hook);
    by_hook.install(&[other]).hooks_succeed();
    for root in [by_command, at_boot, by_hook] {
        assert_eq!(made(&root), [format!("/{IMAGE}")]);
        assert_holds(&root, IMAGE, &release());
        root.assert_settled();
    }
}

/// mkinitcpio took the old kernel's copy, image and preset away before the transaction, and only its own hook brings
/// them back.
#[test]
fn an_interrupted_kernel_bump_gets_its_image_and_its_kernel_back() {
    let root = machine();
    let hooks =
        ["70-dkms-install", "71-dkms-remove", STOCK, "90-mkinitcpio-dkms", "95-dkms-verify"];
    hooks.iter().for_each(|hook| mask(&root, hook));
    root.install(&kernel("linux", 2));
    hooks.iter().for_each(|hook| unmask(&root, hook));
    assert!(!root.exists(IMAGE) && !root.exists("boot/vmlinuz-linux"));
    root.boot_unit().ok();
    assert!(root.exists("boot/vmlinuz-linux"));
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &find("linux-2").content);
    root.assert_settled();
}

#[test]
fn an_image_stays_when_the_new_version_does_not_build() {
    let root = machine();
    mask(&root, STOCK);
    let before = root.bytes(IMAGE);
    let broken = Recipe::module("zfs", "2.0").edit("zfs.c", |code| code + "#error broken\n");
    root.install(&[broken.make(&root)]).hooks_fail().has("stays installed");
    assert_eq!((made(&root), root.bytes(IMAGE)), (vec![], before));
    assert_holds(&root, IMAGE, &release());
}

/// What a person does by hand is told, and done only where that is set.
#[test]
fn a_command_tells_which_image_is_stale() {
    let root = machine();
    let zfs = ["zfs/1.0", "-k", &release()];
    root.dkms(&[&["uninstall"], &zfs[..]].concat())
        .ok()
        .has("/boot/initramfs-linux.img: needs to be regenerated: it holds zfs")
        .has("run: dkms initramfs");
    assert_eq!(made(&root), [""; 0]);
    root.write("etc/dkms/alpm-dkms.toml", "[initramfs]\nmode = \"auto\"\n");
    root.dkms(&[&["install"], &zfs[..]].concat()).ok().has(&kernel_line(&release()));
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}
