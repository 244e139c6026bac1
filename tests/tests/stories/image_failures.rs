//! Failures to generate images, and generators other than mkinitcpio presets.

use std::thread::sleep;
use std::time::Duration;

use stories::{PackageFile, Recipe, Root, find};

use crate::fixture::{kernel, release};
use crate::image_fixture::{IMAGE, mask, new_images, summary_line, unmask};
use crate::mkinitcpio::{STOCK, assert_holds, machine, upgrade_zfs, zfs};

/// The two cases of the Arch wiki: a module is upgraded, without and with its kernel.
#[test]
fn upgrade_generates_the_image_once() {
    let machine = machine();
    let alone = machine.fork();
    upgrade_zfs(&alone).hooks_succeed().has(&summary_line(&release())).lacks("regenerating");
    assert_eq!(new_images(&alone), [format!("/{IMAGE}")]);
    assert_holds(&alone, IMAGE, &release());
    alone.assert_settled();

    let together = machine.fork();
    let (new, module) = (find("linux-2").content, zfs(&together, "2.0"));
    let packages = [&kernel("linux", 2)[..], &[module]].concat();
    together.install(&packages).hooks_succeed().has(&summary_line(&new)).lacks("regenerating");
    assert_eq!(new_images(&together), [format!("/{IMAGE}")]);
    assert_holds(&together, IMAGE, &new);
    together.assert_settled();
}

/// The old version was removed by hand, and the new one fails to build. mkinitcpio's hook therefore
/// generates an image without the module.
#[test]
fn image_generated_without_its_module_is_restored() {
    let root = machine();
    let before = root.bytes(IMAGE);
    root.dkms(&["remove", "zfs/1.0", "--all"]).ok();
    let broken = Recipe::module("zfs", "2.0").edit("zfs.c", |code| code + "#error broken\n");
    root.install(&[broken.make(&root)])
        .hooks_fail()
        .has("generated without zfs, which failed to build; restored the previous image")
        .has(&format!("missing: zfs; run: dkms autoinstall -k {}", release()));
    assert_eq!(new_images(&root), [format!("/{IMAGE}")]);
    assert_eq!(root.bytes(IMAGE), before);
}

/// No module is built for the new kernel, so no work on its images is pending.
#[test]
fn kernel_without_any_module_is_in_the_summary() {
    let root = machine();
    let only = format!("ccflags-y += $(if $(filter {},$(KERNELRELEASE)),,-DNEW)\n", release());
    let fussy = Recipe::module("zfs", "1.1")
        .edit("Makefile", |makefile| makefile + &only)
        .edit("zfs.c", |code| code + "#ifdef NEW\n#error too new\n#endif\n");
    root.install(&[fussy.make(&root)]).hooks_succeed();
    let new = find("linux-2").content;
    root.install(&kernel("linux", 2)).hooks_fail().has(&format!(
        "{new} (linux): 0 modules installed; missing: zfs; run: dkms autoinstall -k {new}"
    ));
    assert_eq!(root.pending().iter().filter(|work| work.starts_with("image")).count(), 0);
}

/// `dkms initramfs` is killed while the generator writes the image.
#[test]
fn truncated_image_is_restored_from_its_copy() {
    let root = machine();
    let (good, before) = (root.read("usr/bin/mkinitcpio"), root.bytes(IMAGE));
    [STOCK, "95-dkms-verify"].iter().for_each(|hook| mask(&root, hook));
    upgrade_zfs(&root).hooks_succeed();
    root.write("usr/bin/mkinitcpio", &format!("#!/bin/sh\necho half >/{IMAGE}; sleep 1000\n"));
    let running = root.start("/usr/bin/dkms", &["initramfs"]);
    while root.bytes(IMAGE) != b"half\n" {
        sleep(Duration::from_millis(10));
    }
    root.kill_everything();
    drop(running);
    // The generator always fails.
    root.write("usr/bin/mkinitcpio", "#!/bin/sh\nexit 1\n");
    root.dkms(&["initramfs"]).exits(1).has("restored the previous image");
    assert_eq!(root.bytes(IMAGE), before);
    root.write("usr/bin/mkinitcpio", &good);
    root.dkms(&["initramfs"]).ok().has(&summary_line(&release()));
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

/// mkinitcpio's hook truncates the image because /boot is full, which also prevents a retry.
#[test]
fn image_truncated_by_a_full_disk_is_restored() {
    let root = machine();
    let (good, before) = (root.read("usr/bin/mkinitcpio"), root.bytes(IMAGE));
    root.move_to_full_disk("boot", 64);
    let fills = format!("#!/bin/sh\ncat /dev/zero >/{IMAGE}\nexit 1\n");
    root.write("usr/bin/mkinitcpio", &fills);
    upgrade_zfs(&root)
        .hooks_fail()
        .has("not enough space in /boot:")
        .has("restored the previous image");
    assert_eq!(root.bytes(IMAGE), before);
    assert!(!root.pending().is_empty(), "the image is not pending");
    root.resize_disk("boot", 1024 * 1024);
    root.write("usr/bin/mkinitcpio", &good);
    root.dkms(&["initramfs"]).ok().has(&summary_line(&release()));
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

/// The transaction is interrupted after mkinitcpio's hook. The recorded state shows that the image
/// is up to date, until modules change again.
#[test]
fn recorded_image_state_is_used_until_modules_change() {
    let root = machine();
    mask(&root, "95-dkms-verify");
    upgrade_zfs(&root).hooks_succeed();
    new_images(&root);
    let changed = root.fork();
    root.dkms(&["initramfs"]).ok().has(&summary_line(&release())).lacks("regenerating");
    assert_eq!(new_images(&root), [""; 0]);
    root.assert_settled();

    changed.write("etc/mkinitcpio.conf", "HOOKS=(base)\n");
    changed.dkms(&["uninstall", "zfs/2.0", "-k", &release()]).ok();
    unmask(&changed, "95-dkms-verify");
    changed
        .dkms(&["initramfs"])
        .ok()
        .has("regenerating /boot/initramfs-linux.img: contains zfs, which changed");
    assert_eq!(new_images(&changed), [format!("/{IMAGE}")]);
    changed.assert_settled();
}

/// The path of the unified kernel image.
const UKI: &str = "efi/EFI/Linux/arch-linux.efi";

/// A fake sbctl that sets the certificate size in the header of an EFI program, as signing does.
const SBCTL: &str = "#!/bin/bash\n[[ \"$*\" == 'sign-all -g' ]] || exit 1\necho sbctl >>/var/log/images.log\n\
                     cd /efi/EFI/Linux\nheader=$(od -An -t u4 -j 60 -N 4 arch-linux.efi)\n\
                     printf '\\1' | dd of=arch-linux.efi bs=1 seek=$((header + 172)) conv=notrunc status=none\n";

fn is_signed(root: &Root) -> bool {
    let bytes = root.bytes(UKI);
    let header = u16::from_le_bytes([bytes[60], bytes[61]]);
    bytes[usize::from(header) + 172] != 0
}

#[test]
fn signed_uki_is_signed_again_or_reported() {
    let root = machine();
    let preset = format!("ALL_kver=/boot/vmlinuz-linux\nPRESETS=(default)\ndefault_uki=/{UKI}\n");
    root.write("etc/mkinitcpio.d/linux.preset", &preset);
    root.write("usr/bin/sbctl", SBCTL);
    root.shell("mkdir -p /efi/EFI/Linux && mkinitcpio -P && sbctl sign-all -g").ok();
    new_images(&root);
    assert!(is_signed(&root));

    // Regenerated by us, and by mkinitcpio's hook. sbctl's hook does not run, since the transaction
    // has no kernel.
    let ours = root.fork();
    mask(&ours, STOCK);
    for root in [&ours, &root.fork()] {
        upgrade_zfs(root).hooks_succeed().has(&format!("zfs in /{UKI}"));
        assert_eq!(new_images(root), [&format!("/{UKI}"), "sbctl"]);
        assert!(is_signed(root));
        root.assert_settled();
    }

    root.write("usr/bin/sbctl", "#!/bin/sh\necho no key >&2; exit 1\n");
    upgrade_zfs(&root)
        .hooks_fail()
        .has(&format!("/{UKI}: no longer signed"))
        .has("no key")
        .has("will not boot with Secure Boot enabled; run: sbctl sign-all -g");
}

/// Adds a self-built kernel that no package owns. Its files are copies of those of `linux`, except
/// the kernel file, which contains its release.
fn self_built_kernel(root: &Root) -> String {
    let PackageFile { content: own, file, .. } = find("linux-true-2");
    let script = format!(
        "cd /usr/lib/modules && cp -a {from} {own} && cd {own} && rm -r pkgbase updates &&\n\
         bsdtar -xOf {file} usr/lib/modules/{own}/vmlinuz | tee vmlinuz >/boot/vmlinuz-own\n\
         sed -i 's/{from}/{own}/' build/include/config/kernel.release build/include/generated/uts*.h",
        from = release()
    );
    root.shell(&script).ok();
    root.dkms(&["autoinstall", "-k", &own]).ok();
    root.dkms(&["initramfs"]).ok();
    own
}

/// A self-built kernel may have a preset of any name that names its kernel file, or only an image.
#[test]
fn images_of_a_self_built_kernel_are_regenerated() {
    let root = machine();
    let own = self_built_kernel(&root);
    mask(&root, STOCK);
    let follows = |root: &Root, image: &str| {
        assert_holds(root, image, &own);
        new_images(root);
        upgrade_zfs(root)
            .hooks_succeed()
            .has(&format!("{own}: regenerating /{image}: contains zfs, which changed"))
            .has(&format!("{own}: 1 module installed, zfs in /{image}"));
        assert_eq!(new_images(root).iter().filter(|made| **made == format!("/{image}")).count(), 1);
        assert_holds(root, image, &own);
        root.assert_settled();
    };

    let by_preset = root.fork();
    let preset = "ALL_kver=/boot/vmlinuz-own\nPRESETS=(default)\ndefault_image=/boot/own.img\n";
    by_preset.write("etc/mkinitcpio.d/mine.preset", preset);
    by_preset.shell("mkinitcpio -p mine").ok();
    follows(&by_preset, "boot/own.img");

    let image = format!("boot/initramfs-{own}.img");
    root.shell(&format!("mkinitcpio -k {own} -g /{image}")).ok();
    follows(&root, &image);
}

/// Creates a machine with zfs but without mkinitcpio and without an image.
fn machine_without_mkinitcpio() -> Root {
    let root = Root::ready();
    let zfs = zfs(&root, "1.0");
    root.install(&[&kernel("linux", 1)[..], &[zfs]].concat()).hooks_succeed();
    root
}

#[test]
fn unknown_generator_is_run_by_the_configured_command() {
    let root = machine_without_mkinitcpio();
    root.write("usr/bin/tiny", "#!/bin/sh\necho \"$*\" >>/var/log/images.log\necho image >$2\n");
    root.write("etc/dkms/alpm-dkms.toml", "[initramfs]\ncommand = \"tiny %k %i\"\n");
    upgrade_zfs(&root).hooks_succeed().has(&format!("{} (linux): 1 module installed", release()));
    assert_eq!(new_images(&root), [format!("{} /{IMAGE}", release())]);
    root.assert_settled();
    // If the command fails, the old image is restored.
    root.write("usr/bin/tiny", "#!/bin/sh\necho spoilt >$2; echo no such luck >&2; exit 3\n");
    root.remove(&["zfs-dkms"]).hooks_fail().has("no such luck").has("restored the previous image");
    assert_eq!(root.read(IMAGE), "image\n");
}

/// A fake booster, whose `ls` lists the files in an image.
const BOOSTER: &str = "#!/bin/bash\ncase $1 in\nls) [[ $(head -n1 $2) == init ]] && cat $2 ;;\n\
                       build) echo $5 >>/var/log/images.log; { echo init\n\
                       find usr/lib/modules/$4 -name 'zfs.ko*'; } >$5 ;;\nesac\n";

#[test]
fn booster_images_are_regenerated() {
    let image = "boot/booster-linux.img";
    let root = machine_without_mkinitcpio();
    root.write("usr/bin/booster", BOOSTER);
    root.shell(&format!("booster build --force --kernel-version {} /{image}", release())).ok();
    new_images(&root);
    // booster's own hook ignores changes of modules.
    upgrade_zfs(&root)
        .hooks_succeed()
        .has(&format!("regenerating /{image}: contains zfs, which changed"))
        .has(&format!("1 module installed, zfs in /{image}"));
    assert_eq!(new_images(&root), [format!("/{image}")]);
    root.install(&[Recipe::module("webcam", "1.0").make(&root)]).hooks_succeed();
    assert_eq!(new_images(&root), [""; 0]);
    root.remove(&["zfs-dkms"]).hooks_succeed().has("regenerating");
    assert_eq!(root.read(image), "init\n");
    root.assert_settled();
}
