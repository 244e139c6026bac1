//! dracut(8): its images, the modules in its configuration, and the commands that regenerate
//! images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Machine};

use super::Tool;
use super::command::GeneratorCommand;
use super::kernel_install;
use super::pacman_hook;
use super::shell_settings::{self, SettingFiles, ShellVariables};
use crate::find_files;
use crate::image::{Image, ImageKind, KmodName};

/// The pacman hook with which Arch's dracut packages regenerate images and copy a new kernel to
/// /boot.
const HOOK: &str = "90-dracut-install.hook";

/// The variables of dracut.conf(5) that add kernel modules to an image.
const DRIVERS: [&str; 3] = ["add_drivers", "force_drivers", "drivers"];

/// The image generator dracut.
#[derive(Debug)]
pub(super) struct Dracut;

impl Tool for Dracut {
    fn name(&self) -> &'static str {
        "dracut"
    }

    fn hook(&self) -> Option<&'static str> {
        Some(HOOK)
    }

    fn list_command(&self) -> Option<&'static [&'static str]> {
        Some(&["lsinitrd"])
    }

    // Initramfs images in /boot that are named after the kernel's package or release, and unified
    // kernel images in an EFI partition. If none exists but dracut's pacman hook creates an image
    // in /boot, returns that image.
    fn images(&self, machine: &Machine, kernel: &Kernel) -> Vec<Image> {
        let root = &machine.trees.root;
        let release = &kernel.release;
        let initramfs = |name: &str, end: &str| {
            Image::in_boot(format!("/boot/initramfs-{name}{end}"), name, release)
        };
        let mut images = Vec::new();
        for name in kernel.pkgbase.iter().map(String::as_str).chain([release.as_str()]) {
            images.extend([".img", "-fallback.img"].map(|end| initramfs(name, end)));
        }
        let releases: Vec<String> =
            find_files::names(root, Path::new("/usr/lib/modules")).collect();
        for top in kernel_install::PARTITIONS {
            let dir = PathBuf::from(format!("{top}/EFI/Linux"));
            let belongs = |name: &String| {
                name.strip_suffix(".efi").is_some_and(|stem| is_for(stem, kernel, &releases))
            };
            let unified = find_files::names(root, &dir).filter(belongs);
            images.extend(
                unified.map(|name| Image::complete(dir.join(name), ImageKind::Uki, release)),
            );
        }
        images.retain(|image| image.below(root).is_file());
        match &kernel.pkgbase {
            Some(pkgbase)
                if images.is_empty()
                    && kernel_install::images(machine, kernel).is_empty()
                    && pacman_hook::is_stock_and_names(root, HOOK, "/boot/initramfs-") =>
            {
                vec![initramfs(pkgbase, ".img")]
            }
            _ => images,
        }
    }

    fn configured_modules(
        &self,
        machine: &Machine,
        kernel: &Kernel,
        _image: &Image,
    ) -> Result<BTreeMap<KmodName, String>, String> {
        let root = &machine.trees.root;
        let mut configs = vec![root.join("etc/dracut.conf")];
        // A file in /etc replaces the file with the same name in /usr (dracut.conf(5)).
        let own = find_files::with_suffix(&root.join("etc/dracut.conf.d"), ".conf");
        let shipped = find_files::with_suffix(&root.join("usr/lib/dracut/dracut.conf.d"), ".conf");
        let replaced = |file: &Path| own.iter().any(|own| own.file_name() == file.file_name());
        let mut dropped: Vec<PathBuf> =
            shipped.into_iter().filter(|file| !replaced(file)).collect();
        dropped.extend(own.clone());
        dropped.sort_by_key(|file| file.file_name().map(ToOwned::to_owned));
        configs.extend(dropped);
        configs.retain(|file| file.exists());
        // dracut sets this variable before it reads the files, so the files may test it.
        let known = [("kernel", kernel.release.as_str())];
        let variables =
            ShellVariables::read_with(&mut shell_settings::reader(machine), &configs, &known)?;
        let files = SettingFiles::read(root, &configs);
        let mut configured = BTreeMap::new();
        for key in DRIVERS.into_iter().chain(["add_dracutmodules", "dracutmodules"]) {
            for word in variables.words(key) {
                configured.entry(KmodName::new(word)).or_insert_with(|| files.place(key, word));
            }
        }
        Ok(configured)
    }

    fn commands(
        &self,
        machine: &Machine,
        kernel: &Kernel,
        images: &[&Image],
    ) -> Vec<GeneratorCommand> {
        let root = &machine.trees.root;
        let (for_new, images) = pacman_hook::command_for_new(root, HOOK, kernel, images);
        let release = kernel.release.as_str();
        let command = |image: &&Image| {
            let path = image.path.display().to_string();
            let mut words = vec!["dracut", "--force"];
            if image.kind == ImageKind::Uki {
                words.push("--uefi");
            }
            // As in Arch's hook scripts, a fallback image is not specific to this machine.
            if path.contains("-fallback") {
                words.push("--no-hostonly");
            }
            words.extend(["--kver", release, &path]);
            GeneratorCommand::new(&words)
        };
        for_new.into_iter().chain(images.iter().map(command)).collect()
    }
}

/// Returns true if a unified kernel image belongs to `kernel`, judging by `stem`, the file name
/// without `.efi`.
///
/// The name must contain the kernel's release or end with the kernel's package: `arch-linux` is not
/// an image of `linux-lts`. If the name contains several of the installed `releases`, the longest
/// one decides: `linux-6.12.1-rt5` is not an image of 6.12.1.
fn is_for(stem: &str, kernel: &Kernel, releases: &[String]) -> bool {
    let named = releases.iter().filter(|release| has_word(stem, release));
    if let Some(longest) = named.max_by_key(|release| release.len()) {
        return longest == kernel.release.as_str();
    }
    let Some(pkgbase) = &kernel.pkgbase else { return false };
    let stem = stem.strip_suffix("-fallback").unwrap_or(stem);
    stem == pkgbase
        || stem
            .strip_suffix(pkgbase.as_str())
            .is_some_and(|rest| rest.ends_with('-') && !rest.contains("linux"))
}

/// Returns true if `text` contains `word` as a whole, not as part of a longer number or name.
fn has_word(text: &str, word: &str) -> bool {
    let is_word_char = |c: char| c.is_alphanumeric() || c == '.';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(is_word_char) && !after.starts_with(is_word_char)
    })
}

#[cfg(test)]
mod tests {
    use dkms_engine::machine::Kernels;
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;
    use crate::image::test_kernel_file;
    use crate::test_machine::test_machine;

    /// Returns the releases of the kernels that own the EFI program `file`. `kernels` are the
    /// installed kernels, each given as release and package.
    fn owners(kernels: &[(&str, &str)], file: &str) -> Vec<String> {
        let root = TestRoot::new();
        for (release, pkgbase) in kernels {
            root.kernel(release).pkgbase(pkgbase);
        }
        root.write(format!("efi/EFI/Linux/{file}"), "");
        let machine = Machine::for_hook(root.path());
        let all = Kernels::read(&machine.trees).unwrap().all;
        let has = |kernel: &&Kernel| !Dracut.images(&machine, kernel).is_empty();
        all.iter().filter(has).map(|kernel| kernel.release.to_string()).collect()
    }

    /// dracut's hook also copies the kernel to /boot. The hook's command is therefore used only for
    /// an image whose kernel file in /boot is not of the installed kernel's release.
    #[test]
    fn dracuts_hook_replaces_the_kernel_of_another_release() {
        let hook = format!("usr/share/libalpm/hooks/{HOOK}");
        let other = test_kernel_file("7.1");
        let files = [
            (hook.as_str(), "[Trigger]\n[Action]\nExec = /script\n"),
            ("boot/vmlinuz-linux", &other),
            ("boot/initramfs-linux.img", ""),
            ("boot/initramfs-7.2.img", ""),
        ];
        let own = "dracut --force --kver 7.2 /boot/initramfs";
        let (root, machine, kernel) = test_machine("7.2", &files);
        let by_hook = "echo usr/lib/modules/7.2/vmlinuz | /script".to_owned();
        assert_eq!(lines(&machine, &kernel), [by_hook, format!("{own}-7.2.img")]);
        let by_dracut = [format!("{own}-linux.img"), format!("{own}-7.2.img")];
        root.write("boot/vmlinuz-linux", test_kernel_file("7.2"));
        assert_eq!(lines(&machine, &kernel), by_dracut);
        root.write("boot/vmlinuz-linux", &other);
        root.link(format!("etc/pacman.d/hooks/{HOOK}"), "/dev/null");
        assert_eq!(lines(&machine, &kernel), by_dracut, "the hook is masked");
    }

    #[test]
    fn names_the_file_of_each_module() {
        let files = [
            ("etc/dracut.conf", "# add_drivers+=\" zfs \"\n"),
            ("usr/lib/dracut/dracut.conf.d/zfs.conf", "add_drivers+=\" zfs \"\n"),
            ("boot/initramfs-linux.img", ""),
        ];
        let (_root, machine, kernel) = test_machine("7.2", &files);
        let image = Dracut.images(&machine, &kernel).remove(0);
        let configured = Dracut.configured_modules(&machine, &kernel, &image).unwrap();
        let place = "add_drivers in /usr/lib/dracut/dracut.conf.d/zfs.conf";
        assert_eq!(configured, [(KmodName::new("zfs"), place.to_owned())].into());
    }

    fn lines(machine: &Machine, kernel: &Kernel) -> Vec<String> {
        let images = Dracut.images(machine, kernel);
        let commands = Dracut.commands(machine, kernel, &images.iter().collect::<Vec<_>>());
        commands.iter().map(GeneratorCommand::line).collect()
    }

    #[rstest]
    #[case::by_release("linux-6.12.1-0b.efi", &["6.12.1"])]
    #[case::by_longest_release("linux-6.12.1-rt5.efi", &["6.12.1-rt5"])]
    #[case::of_removed_kernel("linux-6.12.10.efi", &[])]
    #[case::by_package("arch-linux.efi", &["6.12.1"])]
    #[case::fallback("arch-linux-fallback.efi", &["6.12.1"])]
    #[case::of_another_package("arch-linux-rt.efi", &["6.12.1-rt5"])]
    #[case::of_no_kernel("systemd-bootx64.efi", &[])]
    #[case::other_suffix("linux-6.12.1.efi.old", &[])]
    fn a_unified_image_belongs_to_the_kernel_in_its_name(
        #[case] file: &str,
        #[case] want: &[&str],
    ) {
        let kernels = [("6.12.1", "linux"), ("6.12.1-rt5", "linux-rt")];
        assert_eq!(owners(&kernels, file), want);
    }
}
