//! Finds and removes the temporary files that killed runs left beside images.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use dkms_engine::machine::Machine;
use dkms_engine::os::{durable, paths};

use crate::image_snapshot::TEMPORARY;
use crate::snapshot::Snapshot;

/// Returns the temporary files in /boot and beside the images in the snapshot.
pub(crate) fn find(machine: &Machine) -> BTreeSet<PathBuf> {
    let snapshot = Snapshot::read(machine);
    let beside_images = snapshot.paths().filter_map(Path::parent);
    let dirs: BTreeSet<&Path> = beside_images.chain([Path::new("/boot")]).collect();
    let dirs = dirs.into_iter().map(|dir| paths::below(&machine.trees.root, dir));
    let entries = dirs.filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let files = entries.filter(is_file).map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|it| it == TEMPORARY)).collect()
}

/// Removes the files that [`find`] returns. Logs a warning for each file that cannot be removed.
/// The caller must hold the lock.
pub(crate) fn remove(machine: &Machine) {
    for file in find(machine) {
        if let Err(error) = durable::remove_file_if_there(&file) {
            log::warn!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use crate::image::{Image, ImageKind};
    use crate::{Generator, Maintained, Maintenance, maintain_images, needs_maintenance};

    use super::*;

    #[test]
    fn temporary_files_are_removed_without_pending_images() {
        let root = TestRoot::new();
        let machine = Machine::for_hook(root.path());
        let beside = "efi/0123/7.2/initrd";
        root.write(beside, "image");
        let image = Image {
            path: format!("/{beside}").into(),
            kind: ImageKind::Initramfs,
            kernel: "7.2".parse().unwrap(),
            preset: None,
            kernel_file: None,
        };
        let leftovers = ["boot/initramfs-linux.dkms-tmp", "efi/0123/7.2/initrd.dkms-tmp"];
        let others = ["boot/initramfs-linux.img", "boot/loader/x.dkms-tmp", "boot/dkms-tmp"];
        for leftover in leftovers {
            assert!(!needs_maintenance(&machine));
            let mut snapshot = Snapshot::default();
            snapshot.add(&machine, &image, None, true).expect("a copy");
            snapshot.write(&machine).unwrap();
            others.iter().chain([&leftover]).for_each(|file| root.write(file, "image"));
            assert!(needs_maintenance(&machine), "{leftover}");
            let maintain = |maintenance| {
                let mut say = |line: &str| panic!("{line}");
                let generator = Generator::detect(&machine);
                maintain_images(&machine, generator.as_ref(), maintenance, &mut say).unwrap()
            };
            assert_eq!(maintain(Maintenance::DryRun), Maintained::Nothing);
            assert!(root.exists(leftover), "a dry run changes nothing");
            assert_eq!(maintain(Maintenance::Report), Maintained::Nothing);
            assert!(!root.exists(leftover), "{leftover}");
            assert!(!machine.trees.images().exists(), "no image is pending");
        }
        for file in others.iter().chain([&beside]) {
            assert!(root.exists(file), "{file}");
        }
    }
}
