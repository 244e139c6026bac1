//! Removes modules from a kernel's directory and from the dkms tree, and removes the leftover
//! directories of removed kernels.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::dkms_tree::{PlacedObject, STAGING, forget_failure, remove_staging};
use crate::failure::Failure;
use crate::installing::{BuiltModule, depmod, originals};
use crate::machine::Machine;
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::digest::Digest;
use crate::os::durable::{self, FileError};
use crate::os::symlinks;

/// Removes the objects of a module from a kernel's directory. Keeps files that alpm-dkms did not
/// place there, and returns their paths.
pub(crate) fn uninstall(built: &mut BuiltModule<'_>) -> Result<Vec<PathBuf>, Failure> {
    let BuiltModule { machine, id, kernel, .. } = *built;
    let foreign = remove_placed(built, &[])?;
    originals::restore_originals(machine, id, kernel)?;
    built.note_placed(&[])?;
    if is_installed(machine, id, kernel) {
        let link = machine.trees.installed_link(&id.name, kernel, &machine.arch);
        durable::remove_file_if_there(&link)?;
    }
    Ok(foreign)
}

/// Removes the objects of a module from a kernel's directory, except at the paths in `staying`.
/// Keeps files that alpm-dkms did not place there, and returns their paths.
pub(super) fn remove_placed(
    built: &BuiltModule<'_>,
    staying: &[PlacedObject],
) -> Result<Vec<PathBuf>, FileError> {
    let trees = &built.machine.trees;
    let dir = trees.kernel(built.kernel);
    let ours = built.placed();
    let going: BTreeSet<&str> = ours
        .iter()
        .map(|placed| placed.path.as_str())
        .filter(|path| !staying.iter().any(|new| new.path == *path))
        .collect();
    let mut foreign = Vec::new();
    for path in going {
        let file = dir.join(path);
        if points_below(&file, &symlinks::text_for(&trees.root, &trees.module(&built.id.name))) {
            durable::remove_file_if_there(&file)?;
        }
        match Digest::of_file(&file) {
            Ok(digest) => {
                let found = PlacedObject { path: path.to_owned(), digest };
                if built.placed_by_others().contains(&found) {
                    continue;
                }
                if ours.contains(&found) {
                    durable::remove_file_if_there(&file)?;
                } else {
                    foreign.push(file.clone());
                }
            }
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
        if let Some(parent) = file.parent() {
            durable::remove_unfinished(parent)?;
            durable::remove_empty_dirs_up_to(parent, &dir)?;
        }
    }
    Ok(foreign)
}

/// Returns true if `file` is a symbolic link to a path below `dir`, as created with
/// `symlink_modules`. The target need not exist.
fn points_below(file: &Path, dir: &Path) -> bool {
    fs::read_link(file).is_ok_and(|target| target.starts_with(dir))
}

/// Returns true if the link `kernel-K-A` marks this version of the module as installed.
pub(crate) fn is_installed(machine: &Machine, id: &ModuleId, kernel: &KernelRelease) -> bool {
    let link = machine.trees.installed_link(&id.name, kernel, &machine.arch);
    fs::read_link(link).is_ok_and(|target| {
        let mut parts = target.iter().rev();
        parts.next() == Some(machine.arch.as_str().as_ref())
            && parts.next() == Some(kernel.as_str().as_ref())
            && parts.next() == Some(id.version.as_str().as_ref())
    })
}

/// Deletes the build of a module for a kernel, and the objects that the module has in the kernel's
/// directory.
pub(crate) fn unbuild(
    machine: &Machine,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Result<(), FileError> {
    let trees = &machine.trees;
    let parent = trees.version(id).join(kernel);
    remove_placed(&BuiltModule::read(machine, id, kernel), &[])?;
    let built = trees.built(id, kernel, &machine.arch);
    // The build is renamed first, since a half-deleted `K/A` would be neither built nor removed. If
    // overlayfs cannot rename it, it is deleted in place.
    let going = parent.join(format!("{STAGING}{}_gone", machine.arch));
    if fs::rename(&built, &going).is_err() {
        durable::remove_tree(&built)?;
    }
    remove_staging(&parent)?;
    durable::remove_empty_dirs_up_to(&parent, &trees.version(id))?;
    forget_failure(machine, id, kernel)
}

/// Removes a module from the dkms tree.
///
/// The module must have no builds. `kernels` are the kernels for which a failed build may be
/// recorded.
pub(crate) fn deregister(
    machine: &Machine,
    id: &ModuleId,
    kernels: impl Iterator<Item = KernelRelease>,
) -> Result<(), FileError> {
    let trees = &machine.trees;
    for kernel in kernels {
        forget_failure(machine, id, &kernel)?;
    }
    let kept = trees.kept(id);
    durable::remove_tree(&kept)?;
    durable::remove_tree(&trees.version(id))?;
    if let Some(dir) = kept.parent() {
        durable::remove_empty_dirs_up_to(dir, &trees.dkms)?;
    }
    let module = trees.module(&id.name);
    remove_dangling_links(&module, &machine.arch)?;
    durable::remove_empty_dirs_up_to(&module.join("original_module"), &module)?;
    durable::remove_empty_dirs_up_to(&module, &trees.dkms)
}

/// Removes dangling `kernel-K-A` links, which an interrupted removal leaves behind.
fn remove_dangling_links(module: &Path, arch: &Arch) -> Result<(), FileError> {
    let Ok(entries) = fs::read_dir(module) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with("kernel-") && name.ends_with(arch.as_str());
        if ours && entry.path().is_symlink() && !entry.path().exists() {
            durable::remove_file_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the directory of a removed kernel. If the directory contains a file that is neither
/// depmod's nor temporary, returns the first such file and removes nothing.
pub(crate) fn sweep(
    machine: &Machine,
    kernel: &KernelRelease,
) -> Result<Option<PathBuf>, FileError> {
    let dir = machine.trees.kernel(kernel);
    if !dir.is_dir() || dir.is_symlink() {
        return Ok(None);
    }
    for entry in walkdir::WalkDir::new(&dir).min_depth(1) {
        let entry = entry.map_err(std::io::Error::from).map_err(FileError::when("read", &dir))?;
        let name = entry.file_name().to_string_lossy();
        let depmods = entry.depth() == 1 && depmod::WRITTEN.contains(&name.as_ref());
        let unfinished = name.starts_with(durable::UNFINISHED);
        if !entry.file_type().is_dir() && !depmods && !unfinished {
            return Ok(Some(entry.path().strip_prefix(&dir).unwrap_or(entry.path()).to_owned()));
        }
    }
    durable::remove_tree(&dir)?;
    Ok(None)
}
