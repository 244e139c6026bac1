//! Where dracut's images are besides /boot: in the layouts of kernel-install(8), and in unified kernel images.

use stories::{Root, find};

use crate::dracut::{assert_holds, bump, empty_machine, zfs};
use crate::fixture::{kernel, release};
use crate::image_fixture::{made, mask};

/// The machine's id.
const MACHINE: &str = "0b1a5ad0c64c4a4dbd4b8b0a3a1f9c11";

/// What users of kernel-install have: its pacman hook, and the script that this one runs.
const HOOK: &str = "[Trigger]\nType = Path\nOperation = Install\nOperation = Upgrade\n\
                    Target = usr/lib/modules/*/vmlinuz\n[Action]\nWhen = PostTransaction\n\
                    Exec = /usr/bin/install-kernels\nNeedsTargets\n";
const SCRIPT: &str = "#!/bin/bash\nwhile read -r file; do\n\
                      kernel-install add \"$(basename \"${file%/vmlinuz}\")\" \"/$file\"\ndone\n";

/// The layout with an initramfs beside its kernel, made by dracut.
const BLS: &str = "layout=bls\ninitrd_generator=dracut\n";

/// Sets kernel-install up. There is no partition here by which it could find the place for boot loaders.
fn configure(root: &Root, layout: &str) {
    root.write("etc/kernel/install.conf", &format!("BOOT_ROOT=/efi\n{layout}"));
}

/// A machine whose kernels kernel-install puts into this layout, and one kernel whose image holds the module.
fn machine(layout: &str) -> Root {
    let root = empty_machine();
    root.write("etc/machine-id", &format!("{MACHINE}\n"));
    configure(&root, layout);
    root.write("etc/kernel/cmdline", "root=/dev/sda2 rw\n");
    root.shell(&format!("mkdir -p /efi/{MACHINE} /efi/EFI/Linux /efi/loader/entries")).ok();
    mask(&root, "90-dracut-install");
    root.write("etc/pacman.d/hooks/90-kernel-install.hook", HOOK);
    root.write("usr/bin/install-kernels", SCRIPT);
    let zfs = zfs(&root, "1.0");
    root.install(&[&kernel("linux", 1)[..], &[zfs]].concat()).hooks_succeed().lacks("regenerating");
    made(&root);
    root.assert_settled();
    root
}

/// Where the image of a kernel is in the layout `bls`.
fn initrd(release: &str) -> String {
    format!("efi/{MACHINE}/{release}/initrd")
}

/// Where it is in the layout `uki`.
fn unified(release: &str) -> String {
    format!("efi/EFI/Linux/{MACHINE}-{release}.efi")
}

/// The last line of a transaction.
fn kernel_line(release: &str, image: &str) -> String {
    format!("{release} (linux): 1 module installed, zfs in /{image}")
}

#[test]
fn an_entry_of_kernel_installs_is_made_again_when_its_module_changes() {
    let root = machine(BLS);
    let (old, new) = (release(), find("linux-2").content);
    assert_holds(&root, &initrd(&old), &old);
    bump(&root)
        .hooks_succeed()
        .has(&format!("regenerating /{}: it holds zfs", initrd(&old)))
        .has(&kernel_line(&old, &initrd(&old)));
    assert_eq!(made(&root).len(), 1);
    assert_holds(&root, &initrd(&old), &old);
    root.assert_settled();

    // A new kernel is kernel-install's own business.
    root.install(&kernel("linux", 2))
        .hooks_succeed()
        .has(&kernel_line(&new, &initrd(&new)))
        .lacks("regenerating");
    assert_eq!(made(&root).len(), 1);
    assert_holds(&root, &initrd(&new), &new);
    root.assert_settled();
}

/// kernel-install ends well, and has made no image.
#[test]
fn an_image_that_was_not_changed_stays_pending() {
    let root = machine(BLS);
    let image = initrd(&release());
    let before = root.bytes(&image);
    configure(&root, "layout=bls\ninitrd_generator=none\n");
    bump(&root)
        .hooks_fail()
        .has(&format!("/{image}: its generator did not change it; restored the previous image"));
    assert!(root.bytes(&image) == before);
    configure(&root, BLS);
    root.dkms(&["initramfs"]).ok().has(&kernel_line(&release(), &image));
    assert_holds(&root, &image, &release());
    root.assert_settled();
}

/// Signed by the real sbsign, as sbctl does it: in place.
const SIGN: &str = "#!/bin/bash\nfor file in /efi/EFI/Linux/*.efi; do\n\
                    sbsign --key /root/db.key --cert /root/db.pem --output \"$file\" \"$file\" || exit 1\ndone\n";

/// Makes the keys, and signs what is there.
fn sign(root: &Root) {
    root.write("usr/bin/sign-all", SIGN);
    root.write("etc/dkms/alpm-dkms.toml", "[initramfs]\nsign = \"sign-all\"\n");
    root.shell(
        "openssl req -newkey rsa:2048 -nodes -x509 -subj /CN=db/ -keyout /root/db.key -out /root/db.pem && sign-all",
    )
    .ok();
}

/// Asserts that the firmware would start an image.
#[track_caller]
fn assert_signed(root: &Root, image: &str) {
    root.run("sbverify", &["--cert", "/root/db.pem", &format!("/{image}")]).ok();
}

#[test]
fn a_signed_unified_image_of_kernel_installs_is_made_and_signed_again() {
    let root = machine("layout=uki\nuki_generator=dracut\n");
    let image = unified(&release());
    sign(&root);
    assert_signed(&root, &image);
    bump(&root)
        .hooks_succeed()
        .has(&format!("regenerating /{image}: it holds zfs"))
        .has(&kernel_line(&release(), &image));
    assert_eq!(made(&root).len(), 1);
    assert_holds(&root, &image, &release());
    assert_signed(&root, &image);
    root.assert_settled();
}

/// By dracut itself, under a name that somebody chose.
#[test]
fn a_unified_image_that_is_named_after_its_package_follows() {
    let root = machine("layout=other\n");
    let image = "efi/EFI/Linux/arch-linux.efi";
    root.shell(&format!("dracut --force --uefi --kver {} /{image}", release())).ok();
    made(&root);
    bump(&root)
        .hooks_succeed()
        .has(&format!("regenerating /{image}: it holds zfs"))
        .has(&kernel_line(&release(), image));
    assert_eq!(made(&root), [format!("/{image}")]);
    assert_holds(&root, image, &release());
    root.assert_settled();
}
