//! `[initramfs] precise`: mkinitcpio's own hook regenerates nothing for a module that no image holds.

use stories::{Completed, Recipe, Root, find};

use crate::fixture::{kernel, release};
use crate::image_fixture::{IMAGE, kernel_line, made};
use crate::mkinitcpio::{assert_holds, bump, machine, mkinitcpio};

/// The override.
const OVERRIDE: &str = "etc/pacman.d/hooks/90-mkinitcpio-install.hook";

/// A machine with a module in its image, where that is set.
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

/// Installs a module that no image holds.
fn webcam(root: &Root, version: &str) -> Completed {
    let webcam = Recipe::module("webcam", version).make(root);
    root.install(&[webcam])
}

#[test]
fn only_what_changes_is_regenerated_and_kernels_stay_their_owners() {
    let root = precise();
    let before = root.bytes(IMAGE);
    webcam(&root, "1.0").hooks_succeed().has("2 modules installed, zfs in");
    webcam(&root, "1.1").hooks_succeed();
    root.remove(&["webcam-dkms"]).hooks_succeed();
    assert_eq!((made(&root), root.bytes(IMAGE)), (vec![], before));

    bump(&root).hooks_succeed().has("regenerating").has(&kernel_line(&release()));
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());

    // A kernel's copy, preset and image come from mkinitcpio's own script.
    let new = find("linux-2").content;
    root.install(&kernel("linux", 2)).hooks_succeed().has(&kernel_line(&new)).lacks("regenerating");
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &new);
    assert!(root.exists("boot/vmlinuz-linux") && root.exists("etc/mkinitcpio.d/linux.preset"));
    // So does what else its hook is there for.
    root.install(&[Recipe::empty("own", "1").file("usr/lib/initcpio/install/own", "").make(&root)]);
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    root.assert_settled();
}

#[test]
fn without_whoever_looks_after_images_mkinitcpio_regenerates_all() {
    let root = precise();
    let masked = root.fork();
    masked.shell("ln -s /dev/null /etc/pacman.d/hooks/95-dkms-verify.hook").ok();
    webcam(&masked, "1.0").hooks_succeed();
    // Our programs are gone, and nobody asked us before.
    let gone = root.fork();
    gone.shell("rm -r /usr/lib/alpm-dkms /usr/share/libalpm/hooks/*dkms*").ok();
    webcam(&gone, "1.0").hooks_succeed();
    for root in [masked, gone] {
        assert_eq!(made(&root), [format!("/{IMAGE}")]);
    }
}

#[test]
fn the_override_goes_with_the_setting_and_with_us() {
    let root = precise();
    let unset = root.fork();
    set(&unset, false);
    webcam(&unset, "1.0").hooks_succeed().has(&format!("/{OVERRIDE}: removed"));
    assert!(!unset.exists(OVERRIDE));
    webcam(&unset, "1.1").hooks_succeed().lacks("removed: [initramfs]");

    // The last module takes us along.
    root.pacman(&["-Rs", "zfs-dkms", "alpm-dkms"]).ok();
    assert!(!root.exists(OVERRIDE));
    assert_eq!(made(&root), [format!("/{IMAGE}")], "mkinitcpio's own hook is not back");
}

#[test]
fn the_override_follows_mkinitcpios_own_hook() {
    let root = precise();
    let old = root.read(OVERRIDE);
    let stock = "usr/share/libalpm/hooks/90-mkinitcpio-install.hook";
    let text = root.read(stock).replace("usr/lib/initcpio/*", "usr/lib/new/*");
    let new = Recipe::empty("mkinitcpio", "42");
    let top = concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/initcpio");
    let new = new.files_of(top.as_ref()).file(stock, &text).make(&root);
    root.install(&[new]).hooks_succeed().has(": written: [initramfs] precise");
    assert_eq!(root.read(OVERRIDE), old.replace("usr/lib/initcpio/*", "usr/lib/new/*"));
    root.pacman(&["-Rdd", "mkinitcpio"]).ok().hooks_succeed();
    assert!(!root.exists(OVERRIDE));
    root.install(&[mkinitcpio(&root)]).hooks_succeed();
    assert!(root.exists(OVERRIDE));
}

#[test]
fn a_file_of_somebody_else_stays() {
    let root = machine();
    set(&root, true);
    let theirs = Recipe::empty("limine-hook", "1").file(OVERRIDE, "# theirs\n").make(&root);
    root.install(&[theirs]);
    let taken = format!("warning: [initramfs] precise is ignored: /{OVERRIDE} already exists");
    root.dkms(&["initramfs"]).exits(1).has(&taken);
    webcam(&root, "1.0").hooks_fail().has(&taken);
    assert_eq!(root.read(OVERRIDE), "# theirs\n");
    // Its package would overwrite ours, and so it is theirs even while it is not there.
    root.shell(&format!("rm /{OVERRIDE}")).ok();
    root.dkms(&["initramfs"]).exits(1).has("is owned by limine-hook");
    assert!(!root.exists(OVERRIDE));
}
