//! Places a module's objects in a kernel's directory: all of them or none.
//!
//! All objects are first written to their directories, under names that depmod ignores, and then
//! renamed. If a crash interrupts the renames, the next run places all objects again, as recorded
//! in the list of pending work.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::dkms_tree::{BuiltObject, PlacedObject};
use crate::failure::Failure;
use crate::installing::{BuiltModule, uninstall};
use crate::os::digest::Digest;
use crate::os::durable::{self, FileError};
use crate::os::symlinks;

/// The exit code of dkms if an object cannot be placed (dkms-behaviour 5.2).
const NOT_COPIED: u8 = 6;

/// Places `objects` of the module `new`, and removes the other objects that `new` and `replaces`,
/// the version installed until then, have in the kernel's directory.
///
/// Runs no scripts; the caller does. Calls `before_placing` after all objects have been written,
/// just before the renames.
///
/// # Errors
/// [`Failure`] if a file cannot be written. The previous objects then stay in place.
pub(crate) fn place(
    new: &mut BuiltModule<'_>,
    objects: &[BuiltObject],
    replaces: Option<&mut BuiltModule<'_>>,
    before_placing: impl FnOnce(),
) -> Result<(), Failure> {
    let BuiltModule { machine, id, kernel, .. } = *new;
    let trees = &machine.trees;
    let dir = trees.kernel(kernel);
    if !dir.is_dir() {
        let what = format!("kernel not installed: {} does not exist", dir.display());
        return Err(Failure::new(NOT_COPIED, what));
    }
    let failed = |why| {
        clean_up(&dir, objects);
        Failure { code: NOT_COPIED, ..why }
    };
    let staged = stage(new, objects).map_err(failed)?;
    let now: Vec<PlacedObject> = objects.iter().map(BuiltObject::in_place).collect();
    // Recorded before the renames, so that after a crash the record names every placed object.
    let mut both = new.placed();
    both.extend(now.iter().filter(|object| !both.contains(object)).cloned().collect::<Vec<_>>());
    new.note_placed(&both)?;
    before_placing();
    rename_all(&staged).map_err(|why| failed(why.into()))?;
    // The run syncs all directories at its end. Before old objects are removed, the new ones must be
    // on disk.
    if both != now {
        for directory in locations(&dir, objects) {
            durable::sync_dir(&directory)?;
        }
    }
    uninstall::remove_placed(new, &now)?;
    new.note_placed(&now)?;
    let link = trees.installed_link(&id.name, kernel, &machine.arch);
    let target: PathBuf =
        [id.version.as_str(), kernel.as_str(), machine.arch.as_str()].iter().collect();
    durable::replace_link_unsynced(&link, &target)?;
    if let Some(old) = replaces {
        uninstall::remove_placed(old, &now)?;
        old.note_placed(&[])?;
    }
    Ok(())
}

fn rename_all(staged: &[(PathBuf, PathBuf)]) -> Result<(), FileError> {
    staged
        .iter()
        .try_for_each(|(from, to)| fs::rename(from, to).map_err(FileError::when("place", to)))
}

/// Removes the temporary files of a failed placement. Ignores errors, since the caller reports the
/// failure of the placement itself.
fn clean_up(dir: &Path, objects: &[BuiltObject]) {
    for directory in locations(dir, objects) {
        let _ = durable::remove_unfinished(&directory);
        let _ = durable::remove_empty_dirs_up_to(&directory, dir);
    }
}

/// Returns the directories in which objects are placed, without duplicates.
fn locations(dir: &Path, objects: &[BuiltObject]) -> BTreeSet<PathBuf> {
    objects.iter().map(|object| dir.join(&object.location)).collect()
}

/// Writes each object to its directory under a temporary name, and syncs the file. Returns the
/// temporary path and the final path of each object.
fn stage(
    new: &BuiltModule<'_>,
    objects: &[BuiltObject],
) -> Result<Vec<(PathBuf, PathBuf)>, Failure> {
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
        let to = dir.join(&object.location).join(&object.name);
        let unfinished =
            dir.join(&object.location).join(format!("{}{}.new", durable::UNFINISHED, object.name));
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
        staged.push((unfinished, to));
    }
    Ok(staged)
}
