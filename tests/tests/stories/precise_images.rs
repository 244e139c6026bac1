//! `[initramfs] precise`: mkinitcpio's hook does not regenerate images for a module that is in
//! none.

use stories::{Completed, Recipe, Root, find};

use crate::fixture::{kernel, release};
use crate::image_fixture::{IMAGE, new_images, summary_line};
use crate::mkinitcpio::{assert_holds, machine, mkinitcpio, mkinitcpio_files, upgrade_zfs};

/// The file that overrides mkinitcpio's hook.
const OVERRIDE: &str = "etc/pacman.d/hooks/90-mkinitcpio-install.hook";

/// Creates a machine with zfs in its image and `precise` enabled.
fn precise() -> Root {
    let root = machine();
    set(&root, true);
    root.dkms(&["initramfs"]).ok().has(&format!("/{OVERRIDE}: written"));
    root.dkms(&["initramfs"]).ok().lacks("written");
    root
}

fn set(root: &Root, precise: bool) {
    root.write("etc/dkms/alpm-dkms.toml", &format!("[initramfs]\nprecise = {precise}\n"));
}

/// Installs a module that is in no image.
fn webcam(root: &Root, version: &str) -> Completed {
    let webcam = Recipe::module("webcam", version).make(root);
    root.install(&[webcam])
}

#[test]
fn only_changed_images_are_regenerated_and_mkinitcpio_handles_kernels() {
    let root = precise();
    let before = root.bytes(IMAGE);
    webcam(&root, "1.0").hooks_succeed().has("2 modules installed, zfs in");
    webcam(&root, "1.1").hooks_succeed();
    root.remove(&["webcam-dkms"]).hooks_succeed();
    assert_eq!((new_images(&root), root.bytes(IMAGE)), (vec![], before));

    upgrade_zfs(&root).hooks_succeed().has("regenerating").has(&summary_line(&release()));
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());

    // mkinitcpio's script creates the copy, the preset and the image of a new kernel.
    let new = find("linux-2").content;
    root.install(&kernel("linux", 2))
        .hooks_succeed()
        .has(&summary_line(&new))
        .lacks("regenerating");
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &new);
    assert!(root.exists("boot/vmlinuz-linux") && root.exists("etc/mkinitcpio.d/linux.preset"));
    // It also handles the other triggers of its hook.
    root.install(&[Recipe::empty("own", "1").file("usr/lib/initcpio/install/own", "").make(&root)]);
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    root.assert_settled();
}

#[test]
fn mkinitcpio_regenerates_all_images_without_our_hooks() {
    let root = precise();
    let masked = root.fork();
    masked.shell("ln -s /dev/null /etc/pacman.d/hooks/95-dkms-verify.hook").ok();
    webcam(&masked, "1.0").hooks_succeed();
    // Our programs and hooks were deleted.
    let gone = root.fork();
    gone.shell("rm -r /usr/lib/alpm-dkms /usr/share/libalpm/hooks/*dkms*").ok();
    webcam(&gone, "1.0").hooks_succeed();
    for root in [masked, gone] {
        assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    }
}

#[test]
fn override_is_removed_with_the_setting_or_the_package() {
    let root = precise();
    let unset = root.fork();
    set(&unset, false);
    webcam(&unset, "1.0").hooks_succeed().has(&format!("/{OVERRIDE}: removed"));
    assert!(!unset.exists(OVERRIDE));
    webcam(&unset, "1.1").hooks_succeed().lacks("removed: [initramfs]");

    // The package is removed together with the last module.
    root.pacman(&["-Rs", "zfs-dkms", "alpm-dkms"]).ok();
    assert!(!root.exists(OVERRIDE));
    assert_eq!(new_images(&root), [format!("/{IMAGE}")], "mkinitcpio's hook did not run");
}

#[test]
fn override_is_updated_with_the_mkinitcpio_hook() {
    let root = precise();
    let old = root.read(OVERRIDE);
    let stock = "usr/share/libalpm/hooks/90-mkinitcpio-install.hook";
    let text = root.read(stock).replace("usr/lib/initcpio/*", "usr/lib/new/*");
    let new = Recipe::empty("mkinitcpio", "42");
    let new = new.files_from(&mkinitcpio_files()).file(stock, &text).make(&root);
    root.install(&[new]).hooks_succeed().has(": written: [initramfs] precise");
    assert_eq!(root.read(OVERRIDE), old.replace("usr/lib/initcpio/*", "usr/lib/new/*"));
    root.pacman(&["-Rdd", "mkinitcpio"]).ok().hooks_succeed();
    assert!(!root.exists(OVERRIDE));
    root.install(&[mkinitcpio(&root)]).hooks_succeed();
    assert!(root.exists(OVERRIDE));
}

#[test]
fn foreign_override_is_kept() {
    let root = machine();
    set(&root, true);
    let theirs = Recipe::empty("limine-hook", "1").file(OVERRIDE, "# theirs\n").make(&root);
    root.install(&[theirs]);
    let taken = format!("warning: [initramfs] precise is ignored: /{OVERRIDE} already exists");
    root.dkms(&["initramfs"]).exits(1).has(&taken);
    webcam(&root, "1.0").hooks_fail().has(&taken);
    assert_eq!(root.read(OVERRIDE), "# theirs\n");
    // A file owned by a package is not created even if it is missing.
    root.shell(&format!("rm /{OVERRIDE}")).ok();
    root.dkms(&["initramfs"]).exits(1).has("is owned by limine-hook");
    assert!(!root.exists(OVERRIDE));
}
