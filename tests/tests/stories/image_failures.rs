//! What can go wrong with images, and other ways to make them than a preset of mkinitcpio.

use std::thread::sleep;
use std::time::Duration;

use stories::{Recipe, Root, find};

use crate::fixture::{kernel, release};
use crate::image_fixture::{IMAGE, kernel_line, made, mask, unmask};
use crate::mkinitcpio::{STOCK, assert_holds, bump, machine, zfs};

/// The wiki's two cases: a module is upgraded, without and with its kernel.
#[test]
fn after_an_upgrade_the_image_of_linux_is_made_exactly_once() {
    let machine = machine();
    let alone = machine.fork();
    bump(&alone).hooks_succeed().has(&kernel_line(&release())).lacks("regenerating");
    assert_eq!(made(&alone), [format!("/{IMAGE}")]);
    assert_holds(&alone, IMAGE, &release());
    alone.assert_settled();

    let together = machine.fork();
    let (new, module) = (find("linux-2").content, zfs(&together, "2.0"));
    let packages = [&kernel("linux", 2)[..], &[module]].concat();
    together.install(&packages).hooks_succeed().has(&kernel_line(&new)).lacks("regenerating");
    assert_eq!(made(&together), [format!("/{IMAGE}")]);
    assert_holds(&together, IMAGE, &new);
    together.assert_settled();
}

/// The old version was removed by hand, the new one does not build, and mkinitcpio's hook regenerates without either.
#[test]
fn an_image_that_was_made_without_its_module_is_restored() {
    let root = machine();
    let before = root.bytes(IMAGE);
    root.dkms(&["remove", "zfs/1.0", "--all"]).ok();
    let broken = Recipe::module("zfs", "2.0").edit("zfs.c", |code| code + "#error broken\n");
    root.install(&[broken.make(&root)])
        .hooks_fail()
        .has("it was made without zfs, which did not build; restored the previous image")
        .has(&format!("missing: zfs; run: dkms autoinstall -k {}", release()));
    assert_eq!(made(&root), [format!("/{IMAGE}")]);
    assert_eq!(root.bytes(IMAGE), before);
}

/// No module of a new kernel is built, so nothing of its images changes.
#[test]
fn a_kernel_that_lacks_all_its_modules_is_named_in_the_end() {
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

/// A run of ours is killed while the generator writes.
#[test]
fn half_an_image_is_replaced_by_the_copy_of_the_good_one() {
    let root = machine();
    let (good, before) = (root.read("usr/bin/mkinitcpio"), root.bytes(IMAGE));
    [STOCK, "95-dkms-verify"].iter().for_each(|hook| mask(&root, hook));
    bump(&root).hooks_succeed();
    root.write("usr/bin/mkinitcpio", &format!("#!/bin/sh\necho half >/{IMAGE}; sleep 1000\n"));
    let running = root.start("/usr/bin/dkms", &["initramfs"]);
    while root.bytes(IMAGE) != b"half\n" {
        sleep(Duration::from_millis(10));
    }
    root.kill_everything();
    drop(running);
    // Nothing makes images any more.
    root.write("usr/bin/mkinitcpio", "#!/bin/sh\nexit 1\n");
    root.dkms(&["initramfs"]).exits(1).has("restored the previous image");
    assert_eq!(root.bytes(IMAGE), before);
    root.write("usr/bin/mkinitcpio", &good);
    root.dkms(&["initramfs"]).ok().has(&kernel_line(&release()));
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

/// mkinitcpio's own hook has too little room, writes half an image over the old one, and leaves no room for another try.
#[test]
fn an_image_that_was_spoilt_by_a_full_disk_is_restored() {
    let root = machine();
    let (good, before) = (root.read("usr/bin/mkinitcpio"), root.bytes(IMAGE));
    root.move_to_full_disk("boot", 64);
    let fills = format!("#!/bin/sh\ncat /dev/zero >/{IMAGE}\nexit 1\n");
    root.write("usr/bin/mkinitcpio", &fills);
    bump(&root).hooks_fail().has("not enough space in /boot:").has("restored the previous image");
    assert_eq!(root.bytes(IMAGE), before);
    assert!(!root.pending().is_empty(), "it is no longer pending");
    root.resize_disk("boot", 1024 * 1024);
    root.write("usr/bin/mkinitcpio", &good);
    root.dkms(&["initramfs"]).ok().has(&kernel_line(&release()));
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
}

/// Killed after mkinitcpio's hook: the snapshot shows that the image is fresh, until modules change again.
#[test]
fn an_old_snapshot_is_used_until_modules_change() {
    let root = machine();
    mask(&root, "95-dkms-verify");
    bump(&root).hooks_succeed();
    made(&root);
    let changed = root.fork();
    root.dkms(&["initramfs"]).ok().has(&kernel_line(&release())).lacks("regenerating");
    assert_eq!(made(&root), [""; 0]);
    root.assert_settled();

    changed.write("etc/mkinitcpio.conf", "HOOKS=(base)\n");
    changed.dkms(&["uninstall", "zfs/2.0", "-k", &release()]).ok();
    unmask(&changed, "95-dkms-verify");
    changed.dkms(&["initramfs"]).ok().has("regenerating /boot/initramfs-linux.img: it holds zfs");
    assert_eq!(made(&changed), [format!("/{IMAGE}")]);
    changed.assert_settled();
}

/// The unified kernel image of these machines.
const UKI: &str = "efi/EFI/Linux/arch-linux.efi";

/// Puts the size of a certificate into the header of an EFI program, as a signature does.
const SBCTL: &str = "#!/bin/bash\n[[ \"$*\" == 'sign-all -g' ]] || exit 1\necho sbctl >>/var/log/images.log\n\
                     printf '\\1' | dd of=/efi/EFI/Linux/arch-linux.efi bs=1 seek=236 conv=notrunc status=none\n";

fn is_signed(root: &Root) -> bool {
    root.bytes(UKI)[236] != 0
}

#[test]
fn a_signed_kernel_image_is_signed_again_or_that_is_told() {
    let root = machine();
    let preset = format!("ALL_kver=/boot/vmlinuz-linux\nPRESETS=(default)\ndefault_uki=/{UKI}\n");
    root.write("etc/mkinitcpio.d/linux.preset", &preset);
    root.write("usr/bin/sbctl", SBCTL);
    root.shell("mkdir -p /efi/EFI/Linux && mkinitcpio -P && sbctl sign-all -g").ok();
    made(&root);
    assert!(is_signed(&root));

    // By us, and by mkinitcpio's own hook: nobody else signs after a transaction without a kernel.
    let ours = root.fork();
    mask(&ours, STOCK);
    for root in [&ours, &root.fork()] {
        bump(root).hooks_succeed().has(&format!("zfs in /{UKI}"));
        assert_eq!(made(root), [&format!("/{UKI}"), "sbctl"]);
        assert!(is_signed(root));
        root.assert_settled();
    }

    root.write("usr/bin/sbctl", "#!/bin/sh\necho no key >&2; exit 1\n");
    bump(&root)
        .hooks_fail()
        .has(&format!("/{UKI}: no longer signed"))
        .has("no key")
        .has("will not boot with Secure Boot enabled; run: sbctl sign-all -g");
}

/// Adds a kernel that somebody compiled and no package owns; its file is that of `linux`.
fn own_kernel(root: &Root) -> String {
    let own = find("linux-true-2").content;
    let script = format!(
        "cd /usr/lib/modules && cp -a {from} {own} && cd {own} && rm -r pkgbase updates && cp vmlinuz /boot/vmlinuz-own\n\
         sed -i 's/{from}/{own}/' build/include/config/kernel.release build/include/generated/uts*.h",
        from = release()
    );
    root.shell(&script).ok();
    root.dkms(&["autoinstall", "-k", &own]).ok();
    root.dkms(&["initramfs"]).ok();
    own
}

/// Such a kernel has a preset of any name that tells its file, or nothing but its image.
#[test]
fn the_images_of_a_self_built_kernel_follow() {
    let root = machine();
    let own = own_kernel(&root);
    mask(&root, STOCK);
    let follows = |root: &Root, image: &str| {
        assert_holds(root, image, &own);
        made(root);
        bump(root)
            .hooks_succeed()
            .has(&format!("{own}: regenerating /{image}: it holds zfs"))
            .has(&format!("{own}: 1 module installed, zfs in /{image}"));
        assert_eq!(made(root).iter().filter(|made| **made == format!("/{image}")).count(), 1);
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

/// A machine whose images another program makes, and with that module: what `boot` has is up to it.
fn machine_without_mkinitcpio() -> Root {
    let root = Root::ready();
    let zfs = zfs(&root, "1.0");
    root.install(&[&kernel("linux", 1)[..], &[zfs]].concat()).hooks_succeed();
    root
}

#[test]
fn a_generator_that_nobody_knows_is_called_by_the_administrators_command() {
    let root = machine_without_mkinitcpio();
    root.write("usr/bin/tiny", "#!/bin/sh\necho \"$*\" >>/var/log/images.log\necho image >$2\n");
    root.write("etc/dkms/alpm-dkms.toml", "[initramfs]\ncommand = \"tiny %k %i\"\n");
    bump(&root).hooks_succeed().has(&format!("{} (linux): 1 module installed", release()));
    assert_eq!(made(&root), [format!("{} /{IMAGE}", release())]);
    root.assert_settled();
    // It fails: the old image is restored and stays pending.
    root.write("usr/bin/tiny", "#!/bin/sh\necho spoilt >$2; echo no such luck >&2; exit 3\n");
    root.remove(&["zfs-dkms"]).hooks_fail().has("no such luck").has("restored the previous image");
    assert_eq!(root.read(IMAGE), "image\n");
}

/// Lists what it put into an image, as the real one does.
const BOOSTER: &str = "#!/bin/bash\ncase $1 in\nls) [[ $(head -n1 $2) == init ]] && cat $2 ;;\n\
                       build) echo $5 >>/var/log/images.log; { echo init\n\
                       find usr/lib/modules/$4 -name 'zfs.ko*'; } >$5 ;;\nesac\n";

#[test]
fn boosters_images_follow_the_modules() {
    let image = "boot/booster-linux.img";
    let root = machine_without_mkinitcpio();
    root.write("usr/bin/booster", BOOSTER);
    root.shell(&format!("booster build --force --kernel-version {} /{image}", release())).ok();
    made(&root);
    // booster's own hook does not look at modules.
    bump(&root)
        .hooks_succeed()
        .has(&format!("regenerating /{image}: it holds zfs"))
        .has(&format!("1 module installed, zfs in /{image}"));
    assert_eq!(made(&root), [format!("/{image}")]);
    root.install(&[Recipe::module("webcam", "1.0").make(&root)]).hooks_succeed();
    assert_eq!(made(&root), [""; 0]);
    root.remove(&["zfs-dkms"]).hooks_succeed().has("regenerating");
    assert_eq!(root.read(image), "init\n");
    root.assert_settled();
}
