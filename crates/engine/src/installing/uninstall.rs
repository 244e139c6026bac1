//! Removes modules from a kernel's directory and from the dkms tree, and removes the leftover
//! directories of removed kernels.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dkms_tree::{
    Condition, INVENTORY, Inventory, Placed, STAGING, forget_failure, remove_staging,
};
use crate::failure::Failure;
use crate::installing::{BuiltModule, depmod, originals, place};
use crate::machine::{Kernel, Machine, owner_of};
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::durable::{self, FileError};
use crate::os::symlinks;

/// Removes the objects of a module from a kernel's directory, and places again the objects of other
/// modules that the removed objects had replaced. A file that has been replaced since the
/// installation is kept. Returns the paths of the kept files.
pub(crate) fn uninstall(built: &BuiltModule<'_>) -> Result<Vec<PathBuf>, Failure> {
    let BuiltModule { machine, id, kernel, .. } = *built;
    let foreign = remove_objects(built)?;
    originals::restore_originals(machine, id, kernel)?;
    if is_installed(machine, id, kernel) {
        let link = machine.trees.installed_link(&id.name, kernel, &machine.arch);
        durable::remove_file_if_there(&link)?;
    }
    Ok(foreign)
}

fn remove_objects(built: &BuiltModule<'_>) -> Result<Vec<PathBuf>, Failure> {
    let BuiltModule { machine, id, kernel, .. } = *built;
    let mut inventory = built.inventory();
    let going: Vec<Placed> = inventory.of(id).cloned().collect();
    if going.is_empty() {
        return Ok(Vec::new());
    }
    let on_top: Vec<Placed> =
        going.iter().filter(|object| inventory.is_on_top(object)).cloned().collect();
    going.iter().for_each(|object| inventory.strike(id, &object.path));
    let foreign = remove_files(machine, kernel, &mut inventory, &on_top)?;
    inventory.write()?;
    Ok(foreign)
}

/// Removes the files of `objects`, which the inventory no longer lists, and places again the
/// objects that the removed ones had replaced. A file that has been replaced since the installation
/// is kept. Returns the paths of the kept files. The caller must write the inventory.
pub(super) fn remove_files(
    machine: &Machine,
    kernel: &KernelRelease,
    inventory: &mut Inventory,
    objects: &[Placed],
) -> Result<Vec<PathBuf>, FileError> {
    let trees = &machine.trees;
    let dir = trees.kernel(kernel);
    let mut foreign = Vec::new();
    let is_alive = Kernel::of_release(trees, kernel.clone()).alive;
    for object in objects {
        let mut object = object.clone();
        let successor = inventory.of_module_at(&object.module.name, &object.path);
        let is_replaced = successor.is_some();
        if successor.is_some_and(|new| new.path == object.path) {
            continue;
        }
        object.examine(machine, kernel, &dir);
        let file = dir.join(&object.path);
        let tree = symlinks::text_for(&trees.root, &trees.module(&object.module.name));
        // If an object was never placed, the object of another version may still be at its path. In
        // the directory of a removed kernel, only files of packages are kept.
        let is_owned = || owner_of(trees, &file).is_some();
        let is_foreign = file.exists()
            && !points_below(&file, &tree)
            && match object.condition {
                Condition::Other | Condition::Intended => is_alive || is_owned(),
                Condition::Damaged | Condition::Resigned => is_owned(),
                Condition::Intact | Condition::Missing => false,
            };
        if is_foreign {
            foreign.push(file);
            continue;
        }
        let below = inventory.top(&object.path).filter(|_| !is_replaced).cloned();
        let placed = below.as_ref().is_some_and(|below| {
            let placed = place::place_again(machine, kernel, inventory, below);
            if let Err(why) = &placed {
                let id = &below.module;
                machine.warnings.add(format!(
                    "{id} for {kernel}: cannot install {} again: {why}\n  run: dkms install {id} \
                     -k {kernel}",
                    below.path
                ));
            }
            placed.is_ok()
        });
        if !placed || below.is_none_or(|below| below.path != object.path) {
            durable::remove_file_if_there(&file)?;
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
) -> Result<(), Failure> {
    let trees = &machine.trees;
    let parent = trees.version(id).join(kernel);
    remove_objects(&BuiltModule::read(machine, id, kernel))?;
    let built = trees.built(id, kernel, &machine.arch);
    // The build is renamed first, since a half-deleted `K/A` would be neither built nor removed. If
    // overlayfs cannot rename it, it is deleted in place.
    let going = parent.join(format!("{STAGING}{}_gone", machine.arch));
    if fs::rename(&built, &going).is_err() {
        durable::remove_tree(&built)?;
    }
    remove_staging(&parent)?;
    durable::remove_empty_dirs_up_to(&parent, &trees.version(id))?;
    Ok(forget_failure(machine, id, kernel)?)
}

/// Removes a module from the dkms tree.
///
/// The caller must delete the module's builds first. `kernels` are the kernels for which a failed
/// build may be recorded.
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

/// Removes the directory of a removed kernel. If the directory contains any file except those of
/// depmod and alpm-dkms, returns the first such file and removes nothing.
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
        let ours = name.starts_with(durable::UNFINISHED)
            || (entry.depth() == 1 && name.starts_with(INVENTORY));
        if !entry.file_type().is_dir() && !depmods && !ours {
            return Ok(Some(entry.path().strip_prefix(&dir).unwrap_or(entry.path()).to_owned()));
        }
    }
    durable::remove_tree(&dir)?;
    Ok(None)
}

#[cfg(test)]
mod tests;
