//! booster(1): its images, the modules in its configuration, and the commands that regenerate
//! images.

use std::collections::BTreeMap;
use std::fs;

use dkms_engine::machine::{Kernel, Machine};

use super::Tool;
use super::command::GeneratorCommand;
use super::pacman_hook;
use crate::image::{Image, ImageKind, KmodName};

/// booster's pacman hook, which regenerates images and copies a new kernel to /boot.
const HOOK: &str = "90-booster-install.hook";

/// The image generator booster.
#[derive(Debug)]
pub(super) struct Booster;

impl Tool for Booster {
    fn name(&self) -> &'static str {
        "booster"
    }

    fn hook(&self) -> Option<&'static str> {
        Some(HOOK)
    }

    fn list_command(&self) -> Option<&'static [&'static str]> {
        Some(&["booster", "ls"])
    }

    // Returns `/boot/booster-<pkgbase>.img` and `/boot/booster-<release>.img` if they exist. If
    // neither exists but booster's pacman hook creates the first one, returns that one.
    fn images(&self, machine: &Machine, kernel: &Kernel) -> Vec<Image> {
        let names = kernel.pkgbase.iter().map(String::as_str).chain([kernel.release.as_str()]);
        let image =
            |name| Image::in_boot(format!("/boot/booster-{name}.img"), name, &kernel.release);
        let (root, mut images) = (&machine.trees.root, names.map(image).collect::<Vec<Image>>());
        let hook_creates_it = kernel.pkgbase.is_some()
            && images.iter().all(|image| !image.below(root).is_file())
            && pacman_hook::is_stock_and_names(root, HOOK, "/boot/booster-");
        if hook_creates_it {
            images.truncate(1);
        } else {
            images.retain(|image| image.below(root).is_file());
        }
        images
    }

    // The keys that name modules are `modules`, `modules_force_load` and, for zfs, `enable_zfs`.
    fn configured_modules(
        &self,
        machine: &Machine,
        _kernel: &Kernel,
        _image: &Image,
    ) -> Result<BTreeMap<KmodName, String>, String> {
        let text =
            fs::read_to_string(machine.trees.root.join("etc/booster.yaml")).unwrap_or_default();
        let mut configured = BTreeMap::new();
        for line in text.lines() {
            let Some((key, value)) = line.split('#').next().unwrap_or_default().split_once(':')
            else {
                continue;
            };
            let value = value.trim().trim_matches(['"', '\'']);
            let place = format!("{} in /etc/booster.yaml", key.trim());
            match key.trim() {
                // `-name` excludes a module. `*` and directories select the kernel's own modules.
                "modules" | "modules_force_load" => {
                    let names = value
                        .split(',')
                        .map(str::trim)
                        .filter(|name| !name.starts_with('-') && !name.is_empty());
                    configured.extend(names.map(|name| (KmodName::new(name), place.clone())));
                }
                "enable_zfs" if value == "true" => {
                    drop(configured.insert(KmodName::new("zfs"), place))
                }
                _ => {}
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
        // booster does not generate unified kernel images.
        let initramfs = images.iter().filter(|image| image.kind == ImageKind::Initramfs);
        for_new.into_iter().chain(initramfs.map(command)).collect()
    }
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
    fn boosters_own_hook_creates_a_missing_image() {
        let hook = format!("usr/share/libalpm/hooks/{HOOK}");
        let text =
            "[Trigger]\nTarget = usr/lib/modules/*/vmlinuz\n[Action]\nExec = /usr/lib/install\n";
        let own =
            [(hook.as_str(), text), ("usr/lib/install", "booster build /boot/booster-$x.img")];
        let (_root, machine, kernel) = test_machine("7.2", &own);
        let missing = Booster.images(&machine, &kernel);
        assert_eq!(paths(&missing), [Path::new("/boot/booster-linux.img")]);
        let commands = Booster.commands(&machine, &kernel, &missing.iter().collect::<Vec<_>>());
        let lines: Vec<String> = commands.iter().map(GeneratorCommand::line).collect();
        assert_eq!(lines, ["echo usr/lib/modules/7.2/vmlinuz | /usr/lib/install"]);

        let (_root, machine, kernel) = test_machine("7.2", &[]);
        assert_eq!(Booster.images(&machine, &kernel), []);
    }

    #[test]
    fn booster_regenerates_an_existing_image() {
        let (_root, machine, kernel) = test_machine("7.2", &[("boot/booster-7.2.img", "")]);
        let existing = Booster.images(&machine, &kernel);
        assert_eq!(paths(&existing), [Path::new("/boot/booster-7.2.img")]);
        assert_eq!(existing[0].kernel_file.as_deref(), Some(Path::new("/boot/vmlinuz-7.2")));
        let commands = Booster.commands(&machine, &kernel, &existing.iter().collect::<Vec<_>>());
        let line = commands[0].line();
        assert_eq!(line, "booster build --force --kernel-version 7.2 /boot/booster-7.2.img");
    }
}
