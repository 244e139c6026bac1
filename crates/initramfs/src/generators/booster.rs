//! booster(1): its images, the modules that its configuration names, and the commands that regenerate images.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use dkms_engine::machine::{Kernel, Machine};

use super::command::GeneratorCommand;
use super::pacman_hook;
use crate::image::{Image, ImageKind, KmodName};

/// The pacman hook that regenerates images, and copies a new kernel to /boot.
pub(super) const HOOK: &str = "90-booster-install.hook";

/// Returns the existing images of one kernel: `/boot/booster-<pkgbase>.img`. A kernel without any is expected to have that
/// one if the machine's pacman hook makes it.
pub(super) fn images(machine: &Machine, kernel: &Kernel) -> Vec<Image> {
    let names = kernel.pkgbase.iter().map(String::as_str).chain([kernel.release.as_str()]);
    let paths = names.map(|name| PathBuf::from(format!("/boot/booster-{name}.img")));
    let image = |path| Image {
        path,
        kind: ImageKind::Initramfs,
        kernel: kernel.release.clone(),
        preset: None,
    };
    let (root, mut images) = (&machine.trees.root, paths.map(image).collect::<Vec<Image>>());
    let is_to_come = kernel.pkgbase.is_some()
        && images.iter().all(|image| !image.below(root).is_file())
        && pacman_hook::is_active_and_names(root, HOOK, "/boot/booster-");
    if is_to_come {
        images.truncate(1);
    } else {
        images.retain(|image| image.below(root).is_file());
    }
    images
}

/// Returns the modules that `/etc/booster.yaml` puts into images, each with the key that names it: `modules`,
/// `modules_force_load`, and zfs with `enable_zfs`.
pub(super) fn configured_modules(machine: &Machine) -> BTreeMap<KmodName, String> {
    let text = fs::read_to_string(machine.trees.root.join("etc/booster.yaml")).unwrap_or_default();
    let mut configured = BTreeMap::new();
    for line in text.lines() {
        let Some((key, value)) = line.split('#').next().unwrap_or_default().split_once(':') else {
            continue;
        };
        let value = value.trim().trim_matches(['"', '\'']);
        let place = format!("{} of booster.yaml", key.trim());
        match key.trim() {
            // `-module` excludes one; `*` and directories are groups of the kernel's own modules.
            "modules" | "modules_force_load" => {
                let names = value
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.starts_with('-') && !name.is_empty());
                configured.extend(names.map(|name| (KmodName::new(name), place.clone())));
            }
            "enable_zfs" if value == "true" => drop(configured.insert(KmodName::new("zfs"), place)),
            _ => {}
        }
    }
    configured
}

/// Returns the commands that regenerate these images, all of one kernel.
pub(super) fn commands(
    machine: &Machine,
    kernel: &Kernel,
    images: &[&Image],
) -> Vec<GeneratorCommand> {
    let root = &machine.trees.root;
    if let Some(command) = pacman_hook::command_for_new(root, HOOK, kernel, images) {
        return vec![command];
    }
    let command = |image: &&Image| {
        let path = image.path.display().to_string();
        GeneratorCommand::new(&[
            "booster",
            "build",
            "--force",
            "--kernel-version",
            kernel.release.as_str(),
            &path,
        ])
    };
    // booster makes no unified kernel images.
    images.iter().filter(|image| image.kind == ImageKind::Initramfs).map(command).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::test_machine::test_machine;

    fn paths(images: &[Image]) -> Vec<&Path> {
        images.iter().map(|image| image.path.as_path()).collect()
    }

    #[test]
    fn an_image_that_went_with_the_old_kernel_is_made_by_boosters_own_hook() {
        let hook = format!("usr/share/libalpm/hooks/{HOOK}");
        let text =
            "[Trigger]\nTarget = usr/lib/modules/*/vmlinuz\n[Action]\nExec = /usr/lib/install\n";
        let own =
            [(hook.as_str(), text), ("usr/lib/install", "booster build /boot/booster-$x.img")];
        let (_root, machine, kernel) = test_machine("7.2", &own);
        let to_come = images(&machine, &kernel);
        assert_eq!(paths(&to_come), [Path::new("/boot/booster-linux.img")]);
        let commands = commands(&machine, &kernel, &to_come.iter().collect::<Vec<_>>());
        let lines: Vec<String> = commands.iter().map(GeneratorCommand::line).collect();
        assert_eq!(lines, ["echo usr/lib/modules/7.2/vmlinuz | /usr/lib/install"]);

        let (_root, machine, kernel) = test_machine("7.2", &[]);
        assert_eq!(images(&machine, &kernel), []);
    }

    #[test]
    fn an_image_that_is_there_is_made_by_booster_itself() {
        let (_root, machine, kernel) = test_machine("7.2", &[("boot/booster-7.2.img", "")]);
        let there = images(&machine, &kernel);
        assert_eq!(paths(&there), [Path::new("/boot/booster-7.2.img")]);
        let commands = commands(&machine, &kernel, &there.iter().collect::<Vec<_>>());
        let line = commands[0].line();
        assert_eq!(line, "booster build --force --kernel-version 7.2 /boot/booster-7.2.img");
    }
}
