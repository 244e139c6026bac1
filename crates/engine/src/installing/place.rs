//! Placing a module's objects in a kernel's directory, all of them or none.
//!
//! Everything is written beside its place first, under a name that depmod does not take for a
//! module; then the renames follow each other back to back. A crash between two of them is
//! mended by the pending work that was noted before: the next run places all objects again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::conf::{Conf, Values};
use crate::dkms_tree::{BuiltObject, FILE_NAME, PlacedObject, Record, TreeState};
use crate::failure::Failure;
use crate::machine::{Kernel, Machine};
use crate::names::{KernelRelease, ModuleId};
use crate::objects::ObjectName;
use crate::os::digest::Digest;
use crate::os::durable::{self, FileError};
use crate::os::symlinks;

/// dkms's exit code where an object does not get to its place (dkms-behaviour 5.2).
const NOT_COPIED: u8 = 6;

/// The objects of a built module: as recorded, or what dkms left in `module/`.
pub(crate) fn objects(
    machine: &Machine,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Vec<BuiltObject> {
    let built = machine.trees.built(id, kernel, &machine.arch);
    if let Some(record) = Record::read(&built.join(FILE_NAME)) {
        return record.objects;
    }
    let location = machine
        .placement()
        .ok()
        .and_then(|placement| placement.directory("/updates/dkms").ok())
        .unwrap_or_else(|| PathBuf::from("updates/dkms"));
    let location = location.to_string_lossy().into_owned();
    let Ok(entries) = fs::read_dir(built.join("module")) else { return Vec::new() };
    let mut objects: Vec<BuiltObject> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            ObjectName::parse(&name)?;
            let digest = Digest::of_file(&entry.path()).ok()?;
            Some(BuiltObject { name, digest, location: location.clone() })
        })
        .collect();
    objects.sort_by(|a, b| a.name.cmp(&b.name));
    objects
}

/// Gives the objects of a module their places: the distribution's, or their own where it leaves
/// these to each conf.
pub(crate) fn by_conf(
    machine: &Machine,
    id: &ModuleId,
    kernel: &Kernel,
    values: &Values,
    objects: &mut [BuiltObject],
) {
    let file = machine.trees.source_link(id).join("dkms.conf");
    let conf = Conf::from_values(values, &file, &kernel.release);
    let (Ok(placement), Ok(conf)) = (machine.placement(), conf) else { return };
    for object in objects {
        let Some(name) = ObjectName::parse(&object.name) else { continue };
        let record = conf.records.iter().find(|record| record.dest_name == name.module);
        if let Some(place) = record.and_then(|r| placement.directory(&r.dest_location).ok()) {
            object.location = place.to_string_lossy().into_owned();
        }
    }
}

/// Notes where the objects of a built module go now: the distribution, or what else decides, may
/// have changed since they were built.
pub(crate) fn relocate(machine: &Machine, id: &ModuleId, kernel: &Kernel) -> Result<(), FileError> {
    let path = Record::path(&machine.trees, id, &kernel.release, &machine.arch);
    let Some(mut record) = Record::read(&path) else { return Ok(()) };
    let before = record.objects.clone();
    by_conf(machine, id, kernel, &record.values, &mut record.objects);
    if record.objects == before { Ok(()) } else { record.write(&path) }
}

/// What a module has in a kernel's directory: as recorded, or what dkms would have placed.
pub(crate) fn placed(
    machine: &Machine,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Vec<PlacedObject> {
    match Record::read(&Record::path(&machine.trees, id, kernel, &machine.arch)) {
        Some(record) => record.placed,
        None => objects(machine, id, kernel).iter().map(BuiltObject::in_place).collect(),
    }
}

/// Places built objects of a module, and takes away what it, or the version it replaces, had
/// there before.
///
/// The scripts of both versions are the caller's; `before_placing` is called when nothing can
/// fail any more but the renames themselves.
pub(crate) fn place(
    machine: &Machine,
    id: &ModuleId,
    kernel: &KernelRelease,
    objects: &[BuiltObject],
    replaces: Option<&ModuleId>,
    before_placing: impl FnOnce(),
) -> Result<(), Failure> {
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
    let staged = stage(machine, id, kernel, objects).map_err(failed)?;
    let now: Vec<PlacedObject> = objects.iter().map(BuiltObject::in_place).collect();
    // Known before it is there: whatever a crash leaves, somebody's record names it.
    let mut both = placed(machine, id, kernel);
    both.extend(now.iter().filter(|new| !both.contains(new)).cloned().collect::<Vec<_>>());
    note_placed(machine, id, kernel, &both)?;
    before_placing();
    rename_all(&staged).map_err(|why| failed(why.into()))?;
    for directory in locations(&dir, objects) {
        durable::sync_dir(&directory)?;
    }
    take_away(machine, id, kernel, &now)?;
    note_placed(machine, id, kernel, &now)?;
    let link = trees.installed_link(&id.name, kernel, &machine.arch);
    let target: PathBuf =
        [id.version.as_str(), kernel.as_str(), machine.arch.as_str()].iter().collect();
    durable::replace_link(&link, &target)?;
    if let Some(old) = replaces {
        take_away(machine, old, kernel, &now)?;
        note_placed(machine, old, kernel, &[])?;
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
    machine: &Machine,
    id: &ModuleId,
    kernel: &KernelRelease,
    objects: &[BuiltObject],
) -> Result<Vec<(PathBuf, PathBuf)>, Failure> {
    let dir = machine.trees.kernel(kernel);
    let built = machine.trees.built(id, kernel, &machine.arch).join("module");
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

/// Removes what a module has in a kernel's directory, except at the places of `staying`. What is
/// there but is not what we placed stays, and is named in the answer.
pub(crate) fn take_away(
    machine: &Machine,
    id: &ModuleId,
    kernel: &KernelRelease,
    staying: &[PlacedObject],
) -> Result<Vec<PathBuf>, FileError> {
    let dir = machine.trees.kernel(kernel);
    let ours = placed(machine, id, kernel);
    let going: BTreeSet<&str> = ours
        .iter()
        .map(|placed| placed.path.as_str())
        .filter(|path| !staying.iter().any(|new| new.path == *path))
        .collect();
    let others = if going.is_empty() { Vec::new() } else { placed_by_others(machine, id, kernel) };
    let mut foreign = Vec::new();
    for path in going {
        let file = dir.join(path);
        if leads_to(
            &file,
            &symlinks::text_for(&machine.trees.root, &machine.trees.module(&id.name)),
        ) {
            durable::remove_file_if_there(&file)?;
        }
        match Digest::of_file(&file) {
            Ok(digest) => {
                let found = PlacedObject { path: path.to_owned(), digest };
                if others.contains(&found) {
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

/// Whether a file is a link to somewhere below `dir`: what `symlink_modules` places. Where it
/// leads may have changed, or be gone.
fn leads_to(file: &Path, dir: &Path) -> bool {
    fs::read_link(file).is_ok_and(|target| target.starts_with(dir))
}

/// What other modules and versions have in a kernel's directory: two packages may bring the same
/// object, and the one that goes first must not take it from the other.
pub(crate) fn placed_by_others(
    machine: &Machine,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Vec<PlacedObject> {
    let state = TreeState::read(&machine.trees);
    let others = state.modules.iter().map(|added| &added.id).filter(|other| *other != id);
    others
        .filter_map(|other| {
            Record::read(&Record::path(&machine.trees, other, kernel, &machine.arch))
        })
        .flat_map(|record| record.placed)
        .collect()
}

/// Notes in the record what stands in the kernel's directory.
pub(crate) fn note_placed(
    machine: &Machine,
    id: &ModuleId,
    kernel: &KernelRelease,
    placed: &[PlacedObject],
) -> Result<(), FileError> {
    let path = Record::path(&machine.trees, id, kernel, &machine.arch);
    match Record::read(&path) {
        Some(record) => Record { placed: placed.to_vec(), ..record }.write(&path),
        None => Ok(()),
    }
}

/// Puts the kernel's own objects back, which dkms moved into its tree: depmod prefers ours anyway.
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
        // Not into the directory of a kernel that is gone: that would bring it back.
        let wanted = place.parent().is_some_and(Path::is_dir);
        if archived.is_file() && wanted && !place.exists() {
            move_file(&archived, &place)?;
        }
        durable::remove_file_if_there(&archived)?;
        durable::remove_file_if_there(&origin)?;
    }
    durable::remove_empty_dirs_up_to(&archive, &trees.module(&id.name))
}

/// Where an archived object came from, if that is in its kernel's directory.
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

/// Moves a file, also to another file system.
fn move_file(from: &Path, to: &Path) -> Result<(), FileError> {
    if fs::rename(from, to).is_err() {
        let bytes = fs::read(from).map_err(FileError::when("read", from))?;
        durable::write(to, &bytes)?;
        durable::remove_file_if_there(from)?;
    }
    Ok(())
}
