//! Finds out in advance why an image cannot be written, because a truncated image is worse than a
//! stale one.

use std::path::{Path, PathBuf};

use dkms_engine::machine::Machine;
use dkms_engine::os::durable;

use crate::generators::Generator;
use crate::image::Image;
use crate::mount_table::unmounted_above;

/// The free space in bytes that is required in addition to the estimated size of a new image.
const MARGIN: u64 = 1024 * 1024;

/// The directories in which boot loaders look for images. Each may be a file system of its own.
const BOOT_DIRS: [&str; 3] = ["/boot", "/efi", "/boot/efi"];

/// The reason why an image cannot be written now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) why: String,
    /// Whether a damaged image can still be overwritten with its copy.
    pub(crate) allows_restoring: bool,
}

/// Returns the reason why `image` cannot be regenerated now, or `None` if it can.
///
/// If the image `is_lost`, which means damaged and without a copy, lack of space is no reason: the
/// generator can make nothing worse.
pub(crate) fn obstacle(
    machine: &Machine,
    generator: &Generator,
    image: &Image,
    is_lost: bool,
) -> Option<Obstacle> {
    let root = &machine.trees.root;
    let blocked = |why: String| Some(Obstacle { why, allows_restoring: false });
    let file = image.below(root);
    // The generator creates missing directories.
    let dir = file.parent()?.ancestors().find(|dir| dir.exists())?;
    // The administrator's own command may make the file system writable.
    let is_own_command = !machine.settings.initramfs.command.is_empty();
    if !is_own_command && durable::is_read_only(dir) {
        return blocked(format!("{}: read-only file system", image.path.parent()?.display()));
    }
    // This is no obstacle if the generator's hook also replaces the kernel file.
    if let Some(other) = image.other_kernel(root)
        && (is_own_command || !generator.copies_kernel(machine))
    {
        let kernel = image.kernel_file.as_deref().unwrap_or(Path::new("")).display();
        return blocked(format!("{kernel} is still kernel {other}"));
    }
    if is_lost {
        return None;
    }
    let old = image.size(root);
    // mkinitcpio overwrites the old image if necessary. The other generators first write a new file
    // beside the old image.
    let needed = if generator.is_mkinitcpio() { old / 20 } else { old } + MARGIN;
    let space = durable::free_space(dir)? + generator.size_of_temporary(machine, image);
    if space >= needed {
        return None;
    }
    let dir = image.path.parent()?.display();
    let (space, needed) = (space / 1024, needed / 1024);
    let why = format!("not enough space in {dir}: {space} KiB free, {needed} KiB needed");
    Some(Obstacle { why, allows_restoring: true })
}

/// Returns the mount point of a file system in fstab that may contain a kernel's images but is not
/// mounted.
pub(crate) fn unmounted_boot_dir(machine: &Machine) -> Option<PathBuf> {
    BOOT_DIRS.iter().find_map(|dir| unmounted_above(&machine.trees.root, Path::new(dir)))
}

/// Returns the reason why nothing is written to `dir`: its file system is not mounted.
pub(crate) fn not_mounted(dir: &Path) -> String {
    format!("{} is in /etc/fstab but not mounted", dir.display())
}
