//! mkinitcpio(8): the images of its presets, and the commands that regenerate them.

mod preset;
mod recipe;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::os::paths;

use super::Tool;
use super::command::GeneratorCommand;
use super::pacman_hook::{self, HookInEffect};
use crate::image::{Image, ImageKind, KmodName, other_release};
pub(crate) use preset::HOOK;
use preset::{Preset, presets_for};

/// The image generator mkinitcpio.
#[derive(Debug, Default)]
pub(super) struct Mkinitcpio {
    /// The presets, read only when needed because reading them starts bash.
    presets: OnceCell<Vec<Preset>>,
}

impl Mkinitcpio {
    fn presets(&self, machine: &Machine) -> &[Preset] {
        self.presets.get_or_init(|| Preset::all(machine))
    }
}

impl Tool for Mkinitcpio {
    fn name(&self) -> &'static str {
        "mkinitcpio"
    }

    fn hook(&self) -> Option<&'static str> {
        Some(HOOK)
    }

    fn list_command(&self) -> Option<&'static [&'static str]> {
        // `lsinitcpio -a` would list only modules from the kernel's own directories.
        Some(&["lsinitcpio", "-l"])
    }

    fn temporary(&self, image: &Image) -> Option<PathBuf> {
        let mut name = image.path.clone().into_os_string();
        name.push(".tmp");
        Some(name.into())
    }

    // The images of the kernel's presets. Without a preset, `/boot/initramfs-<release>.img` if it
    // exists.
    fn images(&self, machine: &Machine, kernel: &Kernel) -> Vec<Image> {
        let release = &kernel.release;
        let presets = presets_for(machine, kernel, self.presets(machine));
        if presets.is_empty() {
            let path = format!("/boot/initramfs-{release}.img");
            let image = Image::in_boot(path, release.as_str(), release);
            let exists = image.below(&machine.trees.root).exists();
            return exists.then_some(image).into_iter().collect();
        }
        presets.iter().flat_map(|preset| preset.images(release)).collect()
    }

    fn configured_modules(
        &self,
        machine: &Machine,
        kernel: &Kernel,
        image: &Image,
    ) -> Result<BTreeMap<KmodName, String>, String> {
        recipe::configured_modules(machine, kernel, image, self.presets(machine))
    }

    // An image of a preset is regenerated with `mkinitcpio -p`. If an image or the copy of the
    // kernel in /boot is missing, returns the command of mkinitcpio's pacman hook instead, because
    // the hook also copies the kernel. After an interrupted upgrade, image and kernel are missing:
    // another of mkinitcpio's hooks has removed them. Also returns the hook's command if the kernel
    // in /boot is of another release and mkinitcpio's own hook is in effect, because that hook
    // replaces the kernel.
    fn commands(
        &self,
        machine: &Machine,
        kernel: &Kernel,
        images: &[&Image],
    ) -> Vec<GeneratorCommand> {
        let root = &machine.trees.root;
        let mut presets = presets_for(machine, kernel, self.presets(machine));
        presets.retain(|preset| {
            images.iter().any(|image| image.preset.as_ref() == Some(&preset.name))
        });
        let kernel_files: Vec<&Path> =
            presets.iter().flat_map(|preset| preset.kernel_files()).collect();
        let is_missing = images.iter().any(|image| !image.below(root).exists())
            || kernel_files.iter().any(|file| !paths::below(root, file).exists());
        let is_other = |file: &&Path| other_release(root, file, &kernel.release).is_some();
        let is_replaced = || {
            kernel_files.iter().any(is_other) && HookInEffect::of(root, HOOK) == HookInEffect::Stock
        };
        if kernel.pkgbase.is_some()
            && (is_missing || is_replaced())
            && let Some(words) = pacman_hook::exec(root, HOOK)
        {
            let vmlinuz = format!("usr/lib/modules/{}/vmlinuz\n", kernel.release);
            return vec![GeneratorCommand { words, stdin: vmlinuz }];
        }
        let mut commands: Vec<GeneratorCommand> = presets
            .iter()
            .map(|preset| GeneratorCommand::new(&["mkinitcpio", "-p", &preset.name]))
            .collect();
        let alone = images.iter().filter(|image| image.preset.is_none());
        commands.extend(alone.map(|image| {
            let path = image.path.display().to_string();
            let option = match image.kind {
                ImageKind::Initramfs => "-g",
                ImageKind::Uki => "-U",
            };
            GeneratorCommand::new(&["mkinitcpio", "-k", kernel.release.as_str(), option, &path])
        }));
        commands
    }
}

#[cfg(test)]
mod tests {
    use dkms_engine::machine::Kernels;
    use testroot::TestRoot;

    use super::*;
    use crate::image::test_kernel_file;

    const RELEASE: &str = "7.2.13-arch1-1";

    fn test_machine(files: &[(&str, &str)]) -> (TestRoot, Machine, Kernel) {
        crate::test_machine::test_machine(RELEASE, files)
    }

    fn paths(images: &[Image]) -> Vec<&str> {
        images.iter().map(|image| image.path.to_str().unwrap()).collect()
    }

    fn images_of(machine: &Machine, kernel: &Kernel) -> Vec<Image> {
        Mkinitcpio::default().images(machine, kernel)
    }

    fn lines(machine: &Machine, kernel: &Kernel) -> Vec<String> {
        let images = images_of(machine, kernel);
        let images: Vec<&Image> = images.iter().collect();
        let commands = Mkinitcpio::default().commands(machine, kernel, &images);
        commands.iter().map(GeneratorCommand::line).collect()
    }

    const PRESET: &str = "ALL_kver=/boot/vmlinuz-linux\n\
                          PRESETS=(default fallback)\ndefault_image=/boot/a.img\n\
                          fallback_uki=/efi/b.efi\n";
    const HOOK_FILE: &str = "usr/share/libalpm/hooks/90-mkinitcpio-install.hook";
    const HOOK_TEXT: &str = "[Trigger]\n[Action]\nExec = /script install\n";

    #[test]
    fn finds_the_images_of_a_preset() {
        let (_root, machine, kernel) = test_machine(&[
            ("etc/mkinitcpio.d/linux.preset", PRESET),
            ("etc/mkinitcpio.d/linux-lts.preset", &PRESET.replace("linux", "linux-lts")),
            ("boot/a.img", ""),
            ("efi/b.efi", ""),
            ("boot/vmlinuz-linux", ""),
        ]);
        assert_eq!(paths(&images_of(&machine, &kernel)), ["/boot/a.img", "/efi/b.efi"]);
        let kernel_files = images_of(&machine, &kernel).into_iter().map(|image| image.kernel_file);
        // The unified image contains its kernel.
        assert_eq!(kernel_files.collect::<Vec<_>>(), [Some("/boot/vmlinuz-linux".into()), None]);
        assert_eq!(lines(&machine, &kernel), ["mkinitcpio -p linux"]);
    }

    #[test]
    fn mkinitcpios_hook_restores_removed_images_and_presets() {
        let (_root, machine, kernel) =
            test_machine(&[("etc/mkinitcpio.d/linux.preset", PRESET), (HOOK_FILE, HOOK_TEXT)]);
        let by_hook = [format!("echo usr/lib/modules/{RELEASE}/vmlinuz | /script install")];
        assert_eq!(lines(&machine, &kernel), by_hook);
        // mkinitcpio's hook also removes an unmodified preset.
        let template = "ALL_kver=/boot/vmlinuz-%PKGBASE%\nPRESETS=(default)\n\
                        default_image=/boot/initramfs-%PKGBASE%.img\n";
        let template = ("usr/share/mkinitcpio/hook.preset", template);
        let (_root, machine, kernel) = test_machine(&[template, (HOOK_FILE, HOOK_TEXT)]);
        assert_eq!(paths(&images_of(&machine, &kernel)), ["/boot/initramfs-linux.img"]);
        assert_eq!(lines(&machine, &kernel), by_hook);
        let (_root, masked, kernel) = test_machine(&[template]);
        assert_eq!(images_of(&masked, &kernel), []);
        for preset in ["", "exit 0\n"] {
            let preset = ("etc/mkinitcpio.d/linux.preset", preset);
            let (_root, own, kernel) = test_machine(&[preset, template, (HOOK_FILE, HOOK_TEXT)]);
            assert_eq!(images_of(&own, &kernel), [], "an existing preset is not replaced");
        }
    }

    #[test]
    fn mkinitcpios_hook_replaces_the_kernel_of_another_release() {
        let other = test_kernel_file("7.2.12-arch1-1");
        let files = [
            ("etc/mkinitcpio.d/linux.preset", PRESET),
            ("boot/a.img", ""),
            ("efi/b.efi", ""),
            ("boot/vmlinuz-linux", &other),
            (HOOK_FILE, HOOK_TEXT),
        ];
        let (root, machine, kernel) = test_machine(&files);
        let by_hook = [format!("echo usr/lib/modules/{RELEASE}/vmlinuz | /script install")];
        assert_eq!(lines(&machine, &kernel), by_hook);
        root.write("boot/vmlinuz-linux", test_kernel_file(RELEASE));
        assert_eq!(lines(&machine, &kernel), ["mkinitcpio -p linux"]);
        root.write("boot/vmlinuz-linux", &other);
        root.link(format!("etc/pacman.d/hooks/{HOOK}"), "/dev/null");
        assert_eq!(lines(&machine, &kernel), ["mkinitcpio -p linux"], "the hook is masked");
    }

    #[test]
    fn a_preset_with_any_name_is_for_the_kernel_that_it_names() {
        let preset = "ALL_kver=/boot/own\nPRESETS=(default)\ndefault_image=/boot/own.img\n";
        let (this, other) = (test_kernel_file(RELEASE), test_kernel_file("7.2.13-arch1-10"));
        let files = |kernel| {
            [("etc/mkinitcpio.d/mine.preset", preset), ("boot/own", kernel), ("boot/own.img", "")]
        };
        let (_root, machine, kernel) = test_machine(&files(&this));
        assert_eq!(paths(&images_of(&machine, &kernel)), ["/boot/own.img"]);
        assert_eq!(lines(&machine, &kernel), ["mkinitcpio -p mine"]);
        let (_root, machine, kernel) = test_machine(&files(&other));
        assert_eq!(images_of(&machine, &kernel), []);
    }

    /// As on Arch Linux ARM, where the kernel file names no release.
    #[test]
    fn the_preset_of_a_kernel_without_pkgbase_is_that_of_its_package() {
        let (preset, order) =
            (PRESET.replace("vmlinuz-linux", "Image"), "usr/lib/modules/7.2-1/modules.order");
        let root = TestRoot::new();
        root.kernel("7.2-1");
        root.write("etc/mkinitcpio.d/linux-aarch64.preset", &preset);
        root.write("etc/mkinitcpio.d/linux-other.preset", preset.replace("/boot/a", "/boot/c"));
        root.write("boot/Image", "code");
        root.package("linux-aarch64", "7.2-1", &[order]);
        root.write(HOOK_FILE, HOOK_TEXT);
        let machine = Machine::for_hook(root.path());
        let kernel = Kernels::read(&machine.trees).unwrap().all.remove(0);
        assert_eq!(paths(&images_of(&machine, &kernel)), ["/boot/a.img", "/efi/b.efi"]);
        // mkinitcpio's hook does not know the kernel, so it cannot make the missing images.
        assert_eq!(lines(&machine, &kernel), ["mkinitcpio -p linux-aarch64"]);
    }

    #[test]
    fn a_kernel_without_a_preset_has_an_image_named_after_its_release() {
        let image = format!("boot/initramfs-{RELEASE}.img");
        let (_root, machine, kernel) = test_machine(&[(&image, "")]);
        assert_eq!(lines(&machine, &kernel), [format!("mkinitcpio -k {RELEASE} -g /{image}")]);
    }
}
