//! Restores a kernel's own objects that dkms has moved to its tree.

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::Machine;
use crate::names::{KernelRelease, ModuleId};
use crate::os::durable::{self, FileError};
use crate::os::symlinks;

/// Moves the kernel's original modules, which dkms moved aside when it installed the module `id`,
/// back to the kernel's directory. The original modules can stay there, since depmod prefers the
/// objects that alpm-dkms places.
pub(crate) fn restore_originals(
    machine: &Machine,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Result<(), FileError> {
    let trees = &machine.trees;
    let archive = trees.originals(&id.name, kernel, &machine.arch);
    let Ok(entries) = fs::read_dir(&archive) else { return Ok(()) };
    for origin in entries.flatten().map(|entry| entry.path()) {
        if origin.extension().is_none_or(|extension| extension != "origin") {
            continue;
        }
        let text = fs::read_to_string(&origin).map_err(FileError::when("read", &origin))?;
        let Some(place) = original_place(machine, kernel, text.lines().next().unwrap_or_default())
        else {
            continue;
        };
        let archived = origin.with_extension("");
        // The directory of a removed kernel is not created again.
        let wanted = place.parent().is_some_and(Path::is_dir);
        if archived.is_file() && wanted && !place.exists() {
            move_file(&archived, &place)?;
        }
        durable::remove_file_if_there(&archived)?;
        durable::remove_file_if_there(&origin)?;
    }
    durable::remove_empty_dirs_up_to(&archive, &trees.module(&id.name))
}

/// Returns the original path of a moved object. `text` is the path that dkms recorded. Returns
/// `None` if the path is outside the kernel's directory.
fn original_place(machine: &Machine, kernel: &KernelRelease, text: &str) -> Option<PathBuf> {
    let trees = &machine.trees;
    let path = Path::new(text);
    let dots = path.components().any(|c| matches!(c, std::path::Component::ParentDir));
    // dkms writes /lib/modules/…, which is /usr/lib/modules/… on a merged system.
    let below = ["/usr/lib/modules", "/lib/modules"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix).ok())
        .or_else(|| path.strip_prefix(symlinks::text_for(&trees.root, &trees.install)).ok())?;
    let inside = below.strip_prefix(kernel.as_str()).ok()?;
    (!dots).then(|| trees.kernel(kernel).join(inside))
}

/// Moves a file, across file systems if necessary.
fn move_file(from: &Path, to: &Path) -> Result<(), FileError> {
    if fs::rename(from, to).is_err() {
        let bytes = fs::read(from).map_err(FileError::when("read", from))?;
        durable::write(to, &bytes)?;
        durable::remove_file_if_there(from)?;
    }
    Ok(())
}
