//! The modules that an image must contain: those that the generator's configuration names, and
//! others that the image needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use dkms_engine::machine::{Kernel, Machine};

use crate::find_files;
use crate::generators::Generator;
use crate::image::{Image, KmodName};
use crate::mount_table;

/// The file system types whose modules are often built with dkms. If the root file system has one
/// of these types, an image needs that type's module.
const ROOT_FILE_SYSTEMS: [&str; 2] = ["zfs", "bcachefs"];

/// Returns the modules that an image must contain if it contains the modules `held`. Each module is
/// mapped to the reason. Returns `None` if the generator's configuration cannot be read.
pub(crate) fn needed_modules(
    machine: &Machine,
    generator: &Generator,
    kernel: &Kernel,
    image: &Image,
    held: &BTreeSet<KmodName>,
) -> Option<BTreeMap<KmodName, String>> {
    let configured = generator.configured_modules(machine, kernel, image);
    let mut needed = configured.map_err(|why| log::warn!("{why}")).ok()?;
    needed.extend(soft_dependencies(machine, held));
    needed.extend(root_file_system(machine));
    Some(needed)
}

/// Returns the soft dependencies (modprobe.d(5)) of the modules in `held`. Each dependency is
/// mapped to the reason why an image needs it.
fn soft_dependencies(machine: &Machine, held: &BTreeSet<KmodName>) -> BTreeMap<KmodName, String> {
    let dirs = ["usr/lib/modprobe.d", "lib/modprobe.d", "run/modprobe.d", "etc/modprobe.d"];
    let files =
        dirs.iter().flat_map(|dir| find_files::with_suffix(&machine.trees.root.join(dir), ".conf"));
    let mut implied = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(module) = words.next().map(KmodName::new) else { continue };
            if held.contains(&module) {
                let names = words.filter(|word| !word.ends_with(':'));
                implied.extend(
                    names.map(|name| (KmodName::new(name), format!("a softdep of {module}"))),
                );
            }
        }
    }
    implied
}

/// Returns the module of the root file system, mapped to the reason why an image needs it. Returns
/// an empty map if the file system's type is not one of [`ROOT_FILE_SYSTEMS`].
fn root_file_system(machine: &Machine) -> BTreeMap<KmodName, String> {
    let kinds = mount_table::root_kinds(&machine.trees.root);
    let ours = kinds.iter().filter(|kind| ROOT_FILE_SYSTEMS.contains(&kind.as_str()));
    ours.map(|kind| (KmodName::new(kind), "the root file system".to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn test_machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let machine = Machine::for_hook(Path::new(root.path()));
        (root, machine)
    }

    #[test]
    fn finds_soft_dependencies_of_modules_in_the_image() {
        let (_root, machine) = test_machine(&[(
            "etc/modprobe.d/a.conf",
            "# x\nsoftdep drm-kms pre: nvidia-drm post: foo\n",
        )]);
        let held = BTreeSet::from([KmodName::new("drm_kms")]);
        let implied = soft_dependencies(&machine, &held);
        let names: Vec<&str> = implied.keys().map(KmodName::as_str).collect();
        assert_eq!(names, ["foo", "nvidia_drm"]);
        assert!(soft_dependencies(&machine, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn a_zfs_root_needs_the_zfs_module() {
        let (_root, on_zfs) = test_machine(&[(
            "proc/self/mounts",
            "rootfs / rootfs rw 0 0\nrpool/ROOT / zfs rw 0 0\n",
        )]);
        assert_eq!(
            root_file_system(&on_zfs).keys().map(KmodName::as_str).collect::<Vec<_>>(),
            ["zfs"]
        );
        let (_root, on_ext4) =
            test_machine(&[("etc/fstab", "# / zfs\nUUID=1 / ext4 rw 0 1\ntank /srv zfs rw 0 0\n")]);
        assert!(root_file_system(&on_ext4).is_empty());
    }
}
