//! Placing a module's objects in a kernel's directory, all of them or none.
//!
//! Everything is written beside its place first, under a name that depmod does not take for a
//! module; then the renames follow each other back to back. A crash between two of them is
//! repaired by the pending work recorded before: the next run places all objects again.

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

/// dkms's exit code where an object does not get to its place (dkms-behaviour 5.2).
const NOT_COPIED: u8 = 6;

/// Places built objects of a module, and takes away what it, or the version it replaces, had
/// there before.
///
/// The scripts of both versions are the caller's; `before_placing` is called when nothing can
/// fail any more but the renames themselves.
///
/// # Errors
/// [`Failure`] if something cannot be written; the previous objects then stay in place.
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
        let what = format!("there is no kernel {kernel}: {} is missing", dir.display());
        return Err(Failure::new(NOT_COPIED, what));
    }
    let failed = |why| {
        clean_up(&dir, objects);
        Failure { code: NOT_COPIED, ..why }
    };
    let staged = stage(new, objects).map_err(failed)?;
    let now: Vec<PlacedObject> = objects.iter().map(BuiltObject::in_place).collect();
    // Known before it is there: whatever a crash leaves, somebody's record names it.
    let mut both = new.placed();
    both.extend(now.iter().filter(|object| !both.contains(object)).cloned().collect::<Vec<_>>());
    new.note_placed(&both)?;
    before_placing();
    rename_all(&staged).map_err(|why| failed(why.into()))?;
    for directory in locations(&dir, objects) {
        durable::sync_dir(&directory)?;
    }
    uninstall::take_away(new, &now)?;
    new.note_placed(&now)?;
    let link = trees.installed_link(&id.name, kernel, &machine.arch);
    let target: PathBuf =
        [id.version.as_str(), kernel.as_str(), machine.arch.as_str()].iter().collect();
    durable::replace_link(&link, &target)?;
    if let Some(old) = replaces {
        uninstall::take_away(old, &now)?;
        old.note_placed(&[])?;
    }
    Ok(())
}

fn rename_all(staged: &[(PathBuf, PathBuf)]) -> Result<(), FileError> {
    staged
        .iter()
        .try_for_each(|(from, to)| fs::rename(from, to).map_err(FileError::when("place", to)))
}

/// Leaves nothing of a placing that failed. Its own failure is not the one that matters.
fn clean_up(dir: &Path, objects: &[BuiltObject]) {
    for directory in locations(dir, objects) {
        let _ = durable::remove_unfinished(&directory);
        let _ = durable::remove_empty_dirs_up_to(&directory, dir);
    }
}

/// The directories that objects go to, each once.
fn locations(dir: &Path, objects: &[BuiltObject]) -> BTreeSet<PathBuf> {
    objects.iter().map(|object| dir.join(&object.location)).collect()
}

/// Writes each object beside its place and makes sure that it is on the disk.
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
            let gone = format!(
                "{} is gone: build it again with dkms build {id} -k {kernel} --force",
                from.display()
            );
            return Err(Failure::new(6, gone));
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
            return Err(Failure::new(
                NOT_COPIED,
                format!(
                    "{} is not what was built: build it again with dkms build {id} -k {kernel} --force",
                    from.display()
                ),
            ));
        }
        staged.push((unfinished, to));
    }
    Ok(staged)
}
