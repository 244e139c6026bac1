//! Places a module's objects in a kernel's directory: all of them or none.
//!
//! All objects are first written to their directories, under names that depmod ignores, and then
//! renamed. If one cannot be renamed, the previous objects are restored. If a crash interrupts the
//! renames, the next run places all objects again, as recorded in the list of pending work.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::dkms_tree::{BuiltObject, Condition, Inventory, Placed, other_compressions, slot};
use crate::failure::Failure;
use crate::installing::{BuiltModule, Choice, uninstall};
use crate::machine::{Machine, owner_of};
use crate::names::KernelRelease;
use crate::objects::read_stored_modinfo;
use crate::os::digest::Digest;
use crate::os::durable::{self, FileError};
use crate::os::symlinks;

/// The exit code of dkms if an object cannot be placed (dkms-behaviour 5.2).
const NOT_COPIED: u8 = 6;

/// Places the chosen objects of the module `new` in the kernel's directory, and removes all other
/// objects of any version of the module from it. Keeps objects that have been changed, and returns
/// their paths. Runs no scripts; the caller does.
///
/// # Errors
/// [`Failure`] if an object was built for another kernel or cannot be placed. The previous objects
/// then stay in place.
pub(crate) fn place(
    new: &BuiltModule<'_>,
    inventory: &mut Inventory,
    chosen: &[(BuiltObject, Choice)],
) -> Result<Vec<PathBuf>, Failure> {
    let BuiltModule { machine, id, kernel, .. } = *new;
    let trees = &machine.trees;
    let dir = trees.kernel(kernel);
    if !dir.is_dir() {
        let what = format!("kernel not installed: {} does not exist", dir.display());
        return Err(Failure::new(NOT_COPIED, what));
    }
    let is_new = |choice: &Choice| matches!(choice, Choice::Place);
    let objects: Vec<&BuiltObject> =
        chosen.iter().filter(|(_, choice)| is_new(choice)).map(|(object, _)| object).collect();
    let failed = |why| {
        clean_up(&dir, &objects);
        Failure { code: NOT_COPIED, ..why }
    };
    let staged = stage(new, &objects).map_err(failed)?;
    let before = inventory.clone();
    let replaced: Vec<Placed> =
        before.on_top().filter(|it| it.module.name == id.name).cloned().collect();
    for object in before.objects().filter(|it| it.module.name == id.name) {
        if !chosen.iter().any(|(new, choice)| stays(choice) && is_place_of(object, new)) {
            inventory.strike(&object.module, &object.path);
        }
    }
    for (object, choice) in chosen.iter().filter(|(_, choice)| stays(choice)) {
        let mut entry = new.entry(object);
        if matches!(choice, Choice::Keep | Choice::Leave(_)) {
            entry.condition = Condition::Missing;
            entry.examine(machine, kernel, &dir);
        }
        inventory.list(entry);
        if !matches!(choice, Choice::Below) {
            inventory.raise(id, &object.path());
        }
    }
    // Written before the renames, so that after a crash the inventory lists every placed object.
    inventory.write().map_err(|why| failed(why.into()))?;
    if let Err(why) = rename_all(&staged) {
        *inventory = before;
        inventory.write()?;
        return Err(failed(why.into()));
    }
    // The run syncs all directories at its end. But the new objects must be on disk before old ones
    // are removed.
    // Mutants: without the condition, more is synced than necessary.
    if !replaced.is_empty() {
        for directory in locations(&dir, &objects) {
            durable::sync_dir(&directory)?;
        }
    }
    let link = trees.installed_link(&id.name, kernel, &machine.arch);
    let target: PathBuf =
        [id.version.as_str(), kernel.as_str(), machine.arch.as_str()].iter().collect();
    durable::replace_link_unsynced(&link, &target)?;
    let changed = uninstall::remove_files(machine, kernel, inventory, &replaced)?;
    for path in objects.iter().flat_map(|object| other_compressions(&object.path())) {
        let file = dir.join(path);
        // depmod could otherwise choose this file instead of the object.
        if file.is_file() && !changed.contains(&file) && owner_of(trees, &file).is_none() {
            durable::remove_file_if_there(&file)?;
        }
    }
    objects.iter().for_each(|object| inventory.mark_placed(trees, id, &object.path()));
    // The objects are already in place and listed. If this write fails, for example because the
    // disk is full, the next run merely compares the objects.
    if let Err(error) = inventory.write() {
        log::warn!("{error}");
    }
    Ok(changed)
}

/// Places the object `below` again, which another module's object had replaced. The caller must
/// write the inventory.
///
/// # Errors
/// [`Failure`] if the module's build no longer contains the object, or if the object cannot be
/// placed.
pub(super) fn place_again(
    machine: &Machine,
    kernel: &KernelRelease,
    inventory: &mut Inventory,
    below: &Placed,
) -> Result<(), Failure> {
    let built = BuiltModule::read(machine, &below.module, kernel);
    let object = built.objects().iter().find(|object| is_place_of(below, object));
    let object = object.ok_or_else(|| {
        Failure::new(NOT_COPIED, format!("{}: not in the module's build", below.path))
    })?;
    let staged = stage(&built, &[object])?;
    rename_all(&staged)?;
    for directory in locations(inventory.dir(), &[object]) {
        durable::sync_dir(&directory)?;
    }
    inventory.list(built.entry(object));
    inventory.mark_placed(&machine.trees, built.id, &object.path());
    Ok(())
}

/// Returns true if, after the installation, the object is in the kernel's directory or is listed
/// below another object.
fn stays(choice: &Choice) -> bool {
    !matches!(choice, Choice::Refuse(_))
}

/// Returns true if `object` has the same path as `placed`, apart from the compression suffix.
fn is_place_of(placed: &Placed, object: &BuiltObject) -> bool {
    slot(&placed.path) == slot(&object.path())
}

/// An object that has been written but not yet placed. The three files are in one directory.
struct Staged {
    /// The new object, under a temporary name.
    new: PathBuf,
    /// The final path of the object.
    place: PathBuf,
    /// The temporary path of the previous object until all new objects are in place.
    old: PathBuf,
}

/// Renames all objects to their final paths. If this fails, restores the previous objects.
fn rename_all(staged: &[Staged]) -> Result<(), FileError> {
    for (number, object) in staged.iter().enumerate() {
        if let Err(error) = object.swap_in() {
            staged[..=number].iter().rev().for_each(Staged::restore);
            return Err(error);
        }
    }
    staged.iter().try_for_each(|object| durable::remove_file_if_there(&object.old).map(|_| ()))
}

impl Staged {
    /// Places the new object and keeps the previous one under its temporary name.
    fn swap_in(&self) -> Result<(), FileError> {
        let failed = || FileError::when("place", &self.place);
        match fs::hard_link(&self.place, &self.old) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // A directory cannot be hard-linked, and stays where it is.
            Err(_) if self.place.is_dir() => {}
            // Not every file system has hard links.
            Err(_) => fs::rename(&self.place, &self.old).map_err(failed())?,
        }
        fs::rename(&self.new, &self.place).map_err(failed())
    }

    /// Restores the previous object, or removes the new one if there was none.
    // No mutation test catches a change to the second guard, which only decides whether a line is
    // logged.
    fn restore(&self) {
        let restored = match fs::rename(&self.old, &self.place) {
            Err(error) if error.kind() == ErrorKind::NotFound && !self.new.exists() => {
                fs::remove_file(&self.place)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        };
        if let Err(error) = restored {
            log::warn!("{}", FileError::when("restore", &self.place)(error));
        }
    }
}

/// Removes the temporary files of a failed placement. Ignores errors, since the caller reports the
/// failure of the placement itself.
fn clean_up(dir: &Path, objects: &[&BuiltObject]) {
    for directory in locations(dir, objects) {
        let _ = durable::remove_unfinished(&directory);
        let _ = durable::remove_empty_dirs_up_to(&directory, dir);
    }
}

/// Returns the directories in which objects are placed, without duplicates.
fn locations(dir: &Path, objects: &[&BuiltObject]) -> BTreeSet<PathBuf> {
    objects.iter().map(|object| dir.join(&object.location)).collect()
}

/// Writes each object to its directory under a temporary name, and syncs the file.
///
/// # Errors
/// [`Failure`] if an object cannot be written, has changed since it was built, or was built for
/// another kernel.
fn stage(new: &BuiltModule<'_>, objects: &[&BuiltObject]) -> Result<Vec<Staged>, Failure> {
    let BuiltModule { machine, id, kernel, .. } = *new;
    let dir = machine.trees.kernel(kernel);
    let built = new.dir();
    for directory in locations(&dir, objects) {
        durable::create_dirs(&directory)?;
        durable::remove_unfinished(&directory)?;
    }
    let linked = machine.settings.framework.symlink_modules;
    let mut staged = Vec::new();
    for object in objects {
        let from = built.join(&object.name);
        if !from.exists() {
            return Err(Failure::new(6, format!("{}: missing", from.display()))
                .with_hint(format!("run: dkms build {id} -k {kernel} --force")));
        }
        let directory = dir.join(&object.location);
        let temporary =
            |end: &str| directory.join(format!("{}{}.{end}", durable::UNFINISHED, object.name));
        let (place, unfinished) = (directory.join(&object.name), temporary("new"));
        let written = if linked {
            symlink(symlinks::text_for(&machine.trees.root, &from), &unfinished)
        } else {
            fs::copy(&from, &unfinished).and_then(|_| File::open(&unfinished)?.sync_all())
        };
        written.map_err(FileError::when("write", &unfinished))?;
        let written = Digest::of_file(if linked { &from } else { &unfinished })?;
        if written != object.digest {
            let what = format!("{}: changed since it was built", from.display());
            return Err(Failure::new(NOT_COPIED, what)
                .with_hint(format!("run: dkms build {id} -k {kernel} --force")));
        }
        check_vermagic(new, object, &from)?;
        staged.push(Staged { new: unfinished, place, old: temporary("old") });
    }
    Ok(staged)
}

/// Checks that the object `file` was built for the kernel. Reads the file only if the record of the
/// build does not name the object's kernel.
fn check_vermagic(new: &BuiltModule<'_>, object: &BuiltObject, file: &Path) -> Result<(), Failure> {
    let BuiltModule { machine, id, kernel, .. } = *new;
    let found = object.built_for.clone().or_else(|| {
        let info = read_stored_modinfo(&machine.tools, &machine.env, file)?;
        info.vermagic_release().map(str::to_owned)
    });
    if found.as_deref() == Some(kernel.as_str()) {
        return Ok(());
    }
    let found = found.unwrap_or_else(|| "an unknown kernel".to_owned());
    let what = format!("{}: built for {found} instead of {kernel}", file.display());
    Err(Failure::new(NOT_COPIED, what)
        .with_hint(format!("run: dkms build {id} -k {kernel} --force")))
}

#[cfg(test)]
mod tests;
