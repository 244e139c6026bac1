//! Images are made by a program other than mkinitcpio's hook, or by no program.

use stories::{Recipe, Root, find};

use crate::fixture::{kernel, release};
use crate::image_fixture::{
    IMAGE, mask, name_generator, new_images, set_precise, summary_line, unmask,
};
use crate::mkinitcpio::{STOCK, assert_holds, machine, upgrade_zfs};

/// Returns a hook that runs `command` when modules or kernels change.
fn hook(command: &str) -> String {
    format!(
        "[Trigger]\nType = Path\nOperation = Install\nOperation = Upgrade\nOperation = Remove\n\
         Target = usr/src/*/dkms.conf\nTarget = usr/lib/modules/*/vmlinuz\n[Action]\n\
         When = PostTransaction\nExec = {command}\nNeedsTargets\n"
    )
}

/// The image that limine-mkinitcpio-hook makes for `linux`.
const LIMINE_IMAGE: &str = "boot/EFI/Linux/0b1a5ad0c64c4a4dbd4b8b0a3a1f9c11_linux.efi";

/// A script like that of limine-mkinitcpio-hook, which makes the images of all kernels elsewhere,
/// copies them, and succeeds even if mkinitcpio fails.
const LIMINE: &str = "#!/bin/bash\necho limine >>/var/log/images.log\nfor file in /usr/lib/modules/*/pkgbase; do\n\
                      release=$(basename \"${file%/pkgbase}\")\n\
                      mkinitcpio -k \"$release\" -U /tmp/new.efi || continue\n\
                      install -D /tmp/new.efi \"/boot/EFI/Linux/$(</etc/machine-id)_$(<\"$file\").efi\"\ndone\n";

/// Creates a machine with limine-mkinitcpio-hook, which overrides mkinitcpio's hook and has no
/// presets.
fn limine() -> Root {
    let root = machine();
    root.write("etc/machine-id", "0b1a5ad0c64c4a4dbd4b8b0a3a1f9c11\n");
    let script = "usr/share/libalpm/scripts/limine-mkinitcpio-install";
    let limine = Recipe::empty("limine-mkinitcpio-hook", "1")
        .file(&format!("etc/pacman.d/hooks/{STOCK}.hook"), &hook(&format!("/{script}")))
        .file(script, LIMINE);
    root.install(&[limine.make(&root)]).hooks_succeed();
    root.shell(&format!("rm -f /etc/mkinitcpio.d/* /{IMAGE} && /{script}")).ok();
    new_images(&root);
    root
}

/// The transaction is interrupted before limine's hook. Only limine's command can make its images.
fn boot_unit_makes_none(root: &Root) {
    let masked = [STOCK, "95-dkms-verify"].map(|hook| format!("/etc/pacman.d/hooks/{hook}.hook"));
    root.shell(&format!("mv {} /srv/hook", masked[0])).ok();
    masked.iter().for_each(|hook| drop(root.run("ln", &["-s", "/dev/null", hook]).ok()));
    upgrade_zfs(root).hooks_succeed();
    root.shell(&format!("rm {}; mv -f /srv/hook {}", masked[1], masked[0])).ok();
    root.boot_unit().ok().lacks("regenerating");
    assert_eq!(new_images(root), [""; 0]);
    root.assert_settled();
}

#[test]
fn limine_makes_its_images_once_and_alone() {
    let root = limine();
    assert_holds(&root, LIMINE_IMAGE, &release());
    boot_unit_makes_none(&root.fork());
    let assert_made = |root: &Root, release: &str| {
        assert_eq!(new_images(root), ["limine", "/tmp/new.efi"]);
        assert_holds(root, LIMINE_IMAGE, release);
        assert!(!root.exists(IMAGE) && root.names("etc/mkinitcpio.d").is_empty());
        root.boot_unit().ok();
        assert_eq!(new_images(root), [""; 0], "the boot unit makes images");
        root.assert_settled();
    };
    upgrade_zfs(&root).hooks_succeed().lacks("regenerating").lacks("outdated:");
    assert_made(&root, &release());
    root.install(&kernel("linux", 2)).hooks_succeed().lacks("regenerating");
    assert_made(&root, &find("linux-2").content);
}

/// Makes pacman count the copies of images before mkinitcpio's hook runs.
fn count_copies(root: &Root) {
    root.write(
        "etc/pacman.d/hooks/80-count.hook",
        &hook("/bin/sh -c 'ls /var/lib/dkms/.images | grep [.]img | wc -l >/srv/copies'"),
    );
}

fn copies(root: &Root) -> String {
    root.read("srv/copies").trim().to_owned()
}

#[test]
fn images_without_a_maker_are_left_alone() {
    let machine = machine();
    let before = machine.bytes(IMAGE);
    count_copies(&machine);
    // The administrator has masked the hook.
    let masked = machine.fork();
    masked.shell(&format!("ln -s /dev/null /etc/pacman.d/hooks/{STOCK}.hook")).ok();
    // The hook is masked, and the settings tell alpm-dkms to ignore images.
    let ignored = machine.fork();
    mask(&ignored, STOCK);
    name_generator(&ignored, "none");
    // Only alpm-dkms ignores the images.
    let stock = ignored.fork();
    unmask(&stock, STOCK);
    for (root, made) in [(&masked, vec![]), (&stock, vec![format!("/{IMAGE}")])] {
        upgrade_zfs(root).hooks_succeed().lacks("regenerating").lacks("outdated:");
        assert_eq!((new_images(root), copies(root)), (made, "0".into()));
        root.assert_settled();
        root.dkms(&["initramfs"]).ok();
        assert_eq!(new_images(root), [""; 0]);
    }
    assert!(masked.bytes(IMAGE) == before);
    drop(stock);
    upgrade_zfs(&ignored).hooks_succeed().lacks("regenerating").lacks("outdated:");
    assert_eq!((new_images(&ignored), ignored.bytes(IMAGE)), (vec![], before));
    ignored.assert_settled();
}

#[test]
fn image_of_an_own_hook_is_not_made_again() {
    let root = machine();
    mask(&root, STOCK);
    root.write("etc/pacman.d/hooks/90-linux-x.hook", &hook("/usr/bin/mkinitcpio -p linux"));
    count_copies(&root);
    upgrade_zfs(&root).hooks_succeed().has(&summary_line(&release())).lacks("regenerating");
    assert_eq!((new_images(&root), copies(&root)), (vec![format!("/{IMAGE}")], "1".into()));
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

#[test]
fn fallback_image_without_the_module_is_not_copied() {
    let root = machine();
    let preset = "ALL_kver=/boot/vmlinuz-linux\nPRESETS=(default fallback)\n\
                  default_image=/boot/initramfs-linux.img\nfallback_image=/boot/fallback.img\n\
                  fallback_config=/etc/fallback.conf\n";
    root.write("etc/mkinitcpio.d/linux.preset", preset);
    root.write("etc/fallback.conf", "HOOKS=(base)\n");
    root.shell("mkinitcpio -P").ok();
    new_images(&root);
    let fallback = root.bytes("boot/fallback.img");
    count_copies(&root);
    set_precise(&root);
    upgrade_zfs(&root).hooks_succeed().lacks("regenerating /boot/fallback.img");
    assert_eq!(copies(&root), "1");
    assert_holds(&root, IMAGE, &release());
    // `mkinitcpio -p linux` generates both.
    assert_eq!(new_images(&root), [&format!("/{IMAGE}"), "/boot/fallback.img"]);
    assert!(root.bytes("boot/fallback.img") == fallback);
    root.assert_settled();
}

/// The images of both kernels are in /boot.
#[test]
fn images_in_one_directory_are_each_made_once() {
    let lts = "boot/initramfs-linux-lts.img";
    let root = machine();
    root.install(&kernel("linux-lts", 1)).hooks_succeed();
    new_images(&root);
    set_precise(&root);
    upgrade_zfs(&root)
        .hooks_succeed()
        .has(&format!("/{IMAGE}: contains"))
        .has(&format!("/{lts}: contains"));
    let mut made = new_images(&root);
    made.sort();
    assert_eq!(made, [format!("/{lts}"), format!("/{IMAGE}")]);
    assert_holds(&root, IMAGE, &release());
    assert_holds(&root, lts, &find("linux-lts-1").content);
    root.assert_settled();
}
