use std::fs;

use rstest::rstest;

use super::*;
use crate::test_machine::test_machine;

#[test]
fn finds_no_generator_if_the_settings_say_none() {
    let settings = "[initramfs]\ngenerator = \"none\"\ncommand = \"make-image %i\"\n";
    let files = [("usr/bin/dracut", ""), ("etc/dkms/alpm-dkms.toml", settings)];
    let (_root, machine, _) = test_machine("7.2", &files);
    assert!(Generator::detect(&machine).is_none());
    let (_root, machine, _) = test_machine("7.2", &files[..1]);
    assert!(Generator::detect(&machine).is_some());
}

/// The other images may grow into the space for a temporary file.
#[rstest]
#[case::mkinitcpio("usr/bin/mkinitcpio", true)]
#[case::dracut("usr/bin/dracut", false)]
fn mkinitcpio_overwrites_an_image_without_space_for_a_temporary_file(
    #[case] program: &str,
    #[case] want: bool,
) {
    let files = [(program, ""), (IMAGE.trim_start_matches('/'), "old")];
    let (_root, machine, kernel) = test_machine("7.2", &files);
    let generator = Generator::detect(&machine).unwrap();
    let image = Image::complete(IMAGE.into(), ImageKind::Initramfs, &kernel.release);
    assert!(!generator.overwrites(&machine, &image, 0));
    assert_eq!(generator.overwrites(&machine, &image, 1 << 60), want);
}

const IMAGE: &str = "/boot/initramfs-linux.img";
const STOCK: &str = "[Trigger]\n[Action]\nExec = /scripts/mkinitcpio install\n";
const FOREIGN: &str = "[Trigger]\n[Action]\nExec = /scripts/limine-mkinitcpio-install\n";
const ENTRY: &str = "/efi/0b/7.2/initrd";

/// Returns the images on a machine with mkinitcpio, a preset, a boot entry of kernel-install, the
/// override `in_etc` of mkinitcpio's hook, and `settings`. Also returns whether the generator
/// copies the kernel.
fn images_with_override(in_etc: Option<&str>, settings: &str) -> (Vec<String>, bool) {
    let name = MKINITCPIO_HOOK;
    let (shipped, in_etc_path) =
        (format!("usr/share/libalpm/hooks/{name}"), format!("etc/pacman.d/hooks/{name}"));
    let preset = "ALL_kver=/boot/vmlinuz-linux\nPRESETS=(default)\n\
                  default_image=/boot/initramfs-linux.img\n";
    let files = [
        ("usr/bin/mkinitcpio", ""),
        ("etc/mkinitcpio.d/linux.preset", preset),
        ("etc/machine-id", "0b\n"),
        (ENTRY.trim_start_matches('/'), ""),
        ("etc/dkms/alpm-dkms.toml", settings),
        (&shipped, STOCK),
    ];
    let (root, machine, kernel) = test_machine("7.2", &files);
    match in_etc {
        Some("/dev/null") => root.link(&in_etc_path, "/dev/null"),
        Some(text) => root.write(&in_etc_path, text),
        None => {}
    }
    let copies_kernel = Generator::detect(&machine).unwrap().copies_kernel(&machine);
    (paths(&machine, &kernel), copies_kernel)
}

fn paths(machine: &Machine, kernel: &Kernel) -> Vec<String> {
    let images = Generator::detect(machine).unwrap().images(machine, kernel);
    images.iter().map(|image| image.path.display().to_string()).collect()
}

#[rstest]
#[case::stock(None, "", &[ENTRY, IMAGE], true)]
#[case::masked_by_a_link(Some("/dev/null".into()), "", &[ENTRY], false)]
#[case::masked_by_an_empty_file(Some("".into()), "", &[ENTRY], false)]
#[case::overridden(Some(FOREIGN.into()), "", &[ENTRY], false)]
#[case::overridden_by_us(
    Some(format!("{}\n{FOREIGN}", pacman_hook::MARK)), "", &[ENTRY, IMAGE], true
)]
#[case::named(Some("/dev/null".into()), "generator = 'mkinitcpio'", &[ENTRY, IMAGE], false)]
#[case::with_a_command(None, "command = 'make-image %i'", &[ENTRY, IMAGE], false)]
#[case::overridden_with_a_command(
    Some(FOREIGN.into()), "command = 'make-image %i'", &[ENTRY, IMAGE], false
)]
fn a_generator_makes_images_if_its_own_hook_is_in_effect(
    #[case] in_etc: Option<String>,
    #[case] setting: &str,
    #[case] want: &[&str],
    #[case] copies_kernel: bool,
) {
    let settings = format!("[initramfs]\n{setting}\n");
    let (images, copies) = images_with_override(in_etc.as_deref(), &settings);
    assert_eq!(images, want);
    assert_eq!(copies, copies_kernel);
}

/// Arch's dracut ships no hook.
#[test]
fn a_generator_without_a_hook_makes_images() {
    let files = [("usr/bin/dracut", ""), ("boot/initramfs-linux.img", "")];
    let (_root, machine, kernel) = test_machine("7.2", &files);
    assert_eq!(paths(&machine, &kernel), [IMAGE]);
}

#[test]
fn images_of_limine_mkinitcpio_hook_are_not_ours() {
    let template = "ALL_kver=/boot/vmlinuz-%PKGBASE%\nPRESETS=(default)\n\
                    default_image=/boot/initramfs-%PKGBASE%.img\n";
    let [shipped, in_etc] = ["usr/share/libalpm/hooks", "etc/pacman.d/hooks"]
        .map(|dir| format!("{dir}/{MKINITCPIO_HOOK}"));
    let files = [
        ("usr/bin/mkinitcpio", ""),
        ("usr/share/mkinitcpio/hook.preset", template),
        (&shipped, STOCK),
        (&in_etc, FOREIGN),
        ("etc/machine-id", "0b\n"),
        ("boot/EFI/Linux/0b_linux.efi", ""),
        ("boot/EFI/Linux/arch-linux.efi", ""),
    ];
    let (root, machine, kernel) = test_machine("7.2", &files);
    root.dir("etc/mkinitcpio.d");
    assert_eq!(paths(&machine, &kernel), [""; 0]);
}

#[test]
fn reads_a_preset_once_for_all_images() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let preset = format!(
        "echo read >>{}\nALL_kver=/boot/vmlinuz-linux\nPRESETS=(default fallback)\n\
         default_image=/boot/a.img\nfallback_image=/boot/b.img\n",
        log.path().display()
    );
    let files = [("etc/mkinitcpio.d/linux.preset", preset.as_str()), ("usr/bin/mkinitcpio", "")];
    let (_root, machine, kernel) = test_machine("7.2", &files);
    let generator = Generator::detect(&machine).unwrap();
    assert_eq!(fs::read_to_string(log.path()).unwrap(), "", "detection reads presets");
    let images = generator.images(&machine, &kernel);
    for image in &images {
        generator.configured_modules(&machine, &kernel, image).unwrap();
    }
    let commands = generator.commands(&machine, &kernel, &images.iter().collect::<Vec<_>>());
    assert_eq!((images.len(), commands.len()), (2, 1));
    assert_eq!(fs::read_to_string(log.path()).unwrap(), "read\n");
}
