//! Images are in places where they must not be written, or cannot be.

use std::fs;

use stories::{Completed, Root};

use crate::dracut;
use crate::fixture::release;
use crate::image_fixture::{IMAGE, new_images, set_precise, summary_line};
use crate::mkinitcpio::{assert_holds, machine, upgrade_zfs};

/// Asserts that a transaction has left an image alone and says once that it did so because of
/// `why`.
#[track_caller]
fn assert_left_alone(root: &Root, output: Completed, image: &str, why: &str) {
    let line = format!("/{image}: not regenerated: {why}");
    assert_eq!(output.text.matches(&line).count(), 1, "{line}:\n{}", output.text);
    output.hooks_fail().lacks("restored").lacks("regenerating");
    assert!(!root.pending().is_empty(), "the image is not pending");
}

/// The kernel was upgraded, but its new file was not copied to /boot.
#[test]
fn image_beside_another_kernel_is_left_alone() {
    let root = dracut::machine();
    root.shell("rm /usr/share/libalpm/hooks/90-dracut-install.hook").ok();
    let (copied, before) = ("boot/vmlinuz-linux", root.bytes(IMAGE));
    let mut kernel = root.bytes(copied);
    let version = usize::from(u16::from_le_bytes([kernel[0x20e], kernel[0x20f]])) + 0x200;
    kernel[version..version + 2].copy_from_slice(b"5.");
    fs::write(root.path(copied), kernel).unwrap();
    let output = dracut::upgrade_zfs(&root);
    assert_left_alone(&root, output, IMAGE, "/boot/vmlinuz-linux is still kernel 5.");
    assert!(root.bytes(IMAGE) == before);
    root.boot_unit();
    assert_eq!(new_images(&root), [""; 0]);

    root.shell(&format!("cp /usr/lib/modules/{}/vmlinuz /{copied}", release())).ok();
    root.boot_unit().ok();
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    dracut::assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

/// Moves the files of `dir` to a partition that is in /etc/fstab but not mounted.
fn unmount(root: &Root, dir: &str) {
    let script = format!("mkdir -p /srv/partition /{dir} && mv /{dir}/* /srv/partition");
    root.shell(&script).ok();
    root.write("etc/fstab", &format!("UUID=1 / ext4 rw 0 1\nUUID=2 /{dir} vfat rw 0 2\n"));
}

fn mount(root: &Root, dir: &str) {
    root.shell(&format!("mount --bind /srv/partition /{dir}")).ok();
}

/// With mkinitcpio's hook, which writes nothing if the kernel is missing in /boot, and without it.
#[test]
fn nothing_is_written_below_an_unmounted_boot() {
    let machine = machine();
    unmount(&machine, "boot");
    let by_hook = machine.fork();
    let precise = machine.fork();
    set_precise(&precise);
    for root in [by_hook, precise] {
        let output = upgrade_zfs(&root);
        let output = output.has("run: mount /boot && dkms initramfs");
        assert_left_alone(&root, output, IMAGE, "/boot is in /etc/fstab but not mounted");
        root.dkms(&["verify"]).exits(11).has("; run: mount /boot && dkms initramfs");
        root.boot_unit();
        assert_eq!((new_images(&root), root.files("boot")), (vec![], vec![]));
        mount(&root, "boot");
        root.boot_unit().ok();
        assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
        assert_holds(&root, IMAGE, &release());
        root.assert_settled();
    }
}

#[test]
fn nothing_is_written_below_an_unmounted_esp() {
    let uki = "efi/EFI/Linux/arch-linux.efi";
    let root = machine();
    let preset = format!("ALL_kver=/boot/vmlinuz-linux\nPRESETS=(default)\ndefault_uki=/{uki}\n");
    root.write("etc/mkinitcpio.d/linux.preset", &preset);
    root.shell("mkdir -p /efi/EFI/Linux && mkinitcpio -P").ok();
    new_images(&root);
    set_precise(&root);
    unmount(&root, "efi");
    let output = upgrade_zfs(&root);
    assert_left_alone(&root, output, uki, "/efi is in /etc/fstab but not mounted");
    assert_eq!((new_images(&root), root.files("efi")), (vec![], vec![]));
    mount(&root, "efi");
    root.dkms(&["initramfs"]).ok();
    assert_eq!(new_images(&root), [format!("/{uki}")]);
    assert_holds(&root, uki, &release());
    root.assert_settled();
}

#[test]
fn image_on_a_read_only_file_system_is_left_alone() {
    let machine = machine();
    let before = machine.bytes(IMAGE);
    for by_us in [false, true] {
        let root = machine.fork();
        if by_us {
            set_precise(&root);
        }
        root.move_to_full_disk("boot", 8192);
        root.shell("mount -o remount,ro /boot").ok();
        let output = upgrade_zfs(&root);
        assert_left_alone(&root, output, IMAGE, "/boot: read-only file system");
        assert!(root.bytes(IMAGE) == before);
        root.shell("mount -o remount,rw /boot").ok();
        new_images(&root);
        root.dkms(&["initramfs"]).ok().has(&summary_line(&release()));
        assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
        assert_holds(&root, IMAGE, &release());
        root.assert_settled();
    }
}
