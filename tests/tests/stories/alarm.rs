//! Kernels in the layout of Arch Linux ARM, without `pkgbase` and `vmlinuz` in their directories.

use stories::{PackageFile, Recipe, Root, alarm_kernel, find};

use crate::fixture::{assert_status, installed};
use crate::image_fixture::{IMAGE, mask, new_images, unmask};
use crate::mkinitcpio::{STOCK, assert_holds, mkinitcpio, upgrade_zfs, zfs};
use crate::preflight_fixture::broken_for;

/// Creates a machine with a kernel of Arch Linux ARM and zfs in its image, and returns it with the
/// packages of the kernel's next release.
fn machine() -> (Root, [PackageFile; 2], [PackageFile; 2]) {
    let root = Root::ready();
    root.write("etc/mkinitcpio.conf", "MODULES=()\nHOOKS=(base zfs)\n");
    root.install(&[mkinitcpio(&root)]);
    let [old, new] = [1, 2].map(|number| alarm_kernel(&root, number));
    let modules = [zfs(&root, "1.0"), find("bbswitch")];
    root.install(&[&old[..], &modules].concat()).hooks_succeed().has(&summary_line(&old));
    (root, old, new)
}

/// Returns the summary line of a kernel with zfs and another module.
fn summary_line([kernel, _]: &[PackageFile; 2]) -> String {
    format!("{} (linux-aarch64): 2 modules installed, zfs in /{IMAGE}", kernel.release())
}

#[test]
fn alarm_kernel_is_installed_upgraded_and_removed() {
    let (root, old, new) = machine();
    let modules = ["zfs/1.0", find("bbswitch").module()].map(str::to_owned);
    let status = |release: &str| modules.each_ref().map(|module| installed(module, release));
    for (kernel, is_upgrade) in [(&old, false), (&new, true)] {
        if is_upgrade {
            root.install(kernel).hooks_succeed().has(&summary_line(kernel)).lacks("regenerating");
        }
        let release = kernel[0].release();
        assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
        assert_eq!(root.kernels(), [release]);
        root.assert_works(release, "bbswitch");
        assert_holds(&root, IMAGE, release);
        assert_status(&root, &status(release));
        root.assert_settled();
    }
    root.remove(&["linux-aarch64", "linux-aarch64-headers"]).hooks_succeed();
    assert_eq!(root.kernels(), [""; 0]);
    assert_status(&root, &modules.map(|module| format!("{module}: added")));
    root.assert_settled();
}

#[test]
fn alarm_headers_are_named_installed_and_removed() {
    let (root, old, [kernel, headers]) = machine();
    // mkinitcpio's hook fails, because zfs is missing.
    root.install(std::slice::from_ref(&kernel)).has(&format!(
        "{}: no kernel headers installed: linux-aarch64-headers is for {}",
        kernel.release(),
        old[0].release()
    ));
    assert_eq!(root.installed_objects(kernel.release()), [""; 0]);
    root.install(&[headers]).hooks_succeed().has("regenerating /boot/initramfs-linux.img");
    root.assert_works(kernel.release(), "bbswitch");
    assert_holds(&root, IMAGE, kernel.release());
    root.remove(&["linux-aarch64-headers"]).hooks_succeed();
    root.assert_works(kernel.release(), "bbswitch");
    assert!(!root.kernels().contains(&old[0].content), "{:?}", root.kernels());
    root.assert_settled();
}

/// mkinitcpio's hook is masked, so that alpm-dkms regenerates the image.
#[test]
fn image_of_an_alarm_kernel_follows_its_modules() {
    let (root, old, _) = machine();
    new_images(&root);
    mask(&root, STOCK);
    upgrade_zfs(&root)
        .hooks_succeed()
        .has("regenerating /boot/initramfs-linux.img: contains zfs, which changed")
        .has(&summary_line(&old));
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, old[0].release());
    root.assert_settled();

    // The transaction is interrupted, and the image is lost.
    mask(&root, "95-dkms-verify");
    root.install(&[zfs(&root, "3.0")]).hooks_succeed();
    unmask(&root, "95-dkms-verify");
    root.shell(&format!("rm /{IMAGE}")).ok();
    root.dkms(&["initramfs", "--dry-run"]).ok().has("would run: mkinitcpio -p linux-aarch64");
    root.dkms(&["initramfs"]).ok().has(&summary_line(&old));
    assert_holds(&root, IMAGE, old[0].release());

    root.remove(&["bbswitch-dkms", "zfs-dkms"]);
    assert_eq!(root.installed_objects(old[0].release()), [""; 0]);
    assert_status(&root, &[]);
}

#[test]
fn preflight_aborts_an_upgrade_that_would_lose_a_module_on_alarm() {
    let (root, old, new) = machine();
    let broken = broken_for(new[0].release(), Recipe::module("zfs", "2.0"), "zfs.c").make(&root);
    root.install(&[broken]).hooks_succeed();
    root.unmask_preflight();
    let files = new.each_ref().map(|package| package.file.as_str());
    let refused = root.pacman(&[&["-U"], &files[..]].concat()).has("The transaction is aborted");
    refused
        .has(&format!("zfs/2.0 works with {} (linux-aarch64)", old[0].release()))
        .has("this machine needs zfs");
    assert_eq!(root.kernels(), [old[0].release()]);
    let conf = root.read("usr/src/zfs-2.0/dkms.conf");
    let fixed = Recipe::module("zfs", "3.0").source("dkms.conf", &conf.replace("2.0", "3.0"));
    let fixed = fixed.make(&root);
    root.install(&[&new[..], &[fixed]].concat())
        .hooks_succeed()
        .has(&format!("2 modules built for {}", new[0].release()))
        .has(&summary_line(&new));
    root.assert_settled();
}
