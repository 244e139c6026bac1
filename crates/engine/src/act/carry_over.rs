//! Renames modules that were registered with the name of the source directory split at the wrong
//! dash.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::conf::{Values, is_source};
use crate::dkms_tree::{
    Added, BuiltFor, Inventory, PendingList, PendingWork, Record, TreeState, forget_failure,
};
use crate::facts::{self, Facts, ModuleFacts, Pair};
use crate::machine::{Kernels, Machine};
use crate::names::ModuleId;
use crate::os::durable::{self, FileError};
use crate::os::symlinks;

/// Renames each module that was registered with the name of its source directory split at the last
/// dash, although its dkms.conf splits the name elsewhere. dkms's hook and old versions of
/// alpm-dkms registered modules in this way. The builds stay installed. Returns one message per
/// module.
///
/// Skips the modules in `except`, which the command line names. The caller must hold the lock. If
/// the result is not empty, the caller must read the facts again.
pub fn carry_over_registrations(
    machine: &Machine,
    facts: &Facts,
    except: &BTreeSet<ModuleId>,
) -> Vec<String> {
    let there = |id: &ModuleId| machine.trees.version(id).symlink_metadata().is_ok();
    let mut said = Vec::new();
    for (old, module) in facts.modules.iter().filter(|(id, _)| !except.contains(id)) {
        let new = right_module(machine, old, module).filter(|new| new != old && !there(new));
        let Some(new) = new else { continue };
        said.push(match rename(machine, old, &new) {
            Ok(()) => format!("note: {old}: renamed to {new} to match its dkms.conf"),
            Err(error) => format!("warning: {old}: cannot rename to {new}: {error}"),
        });
    }
    said
}

/// Returns the module named by the dkms.conf of the registered module `id`. Returns `None` if the
/// name of the source directory is not ambiguous, if `id` is not that name split at the last dash,
/// or if the dkms.conf names a module with another source directory.
fn right_module(machine: &Machine, id: &ModuleId, module: &ModuleFacts) -> Option<ModuleId> {
    let trees = &machine.trees;
    let dir = id.source_dir();
    let at_last_dash = ModuleId::from_source_dir(&dir).is_ok_and(|split| split == *id);
    if !ModuleId::is_ambiguous(&dir) || !at_last_dash || !trees.version(id).is_dir() {
        return None;
    }
    if let Some(values) = module.pairs.values().find_map(known_values) {
        return facts::named(&dir, values);
    }
    let sources = [trees.source.join(&dir), trees.kept(id)];
    let source = sources.iter().find(|source| is_source(source))?;
    facts::named_by_conf(machine, &dir, source)
}

/// Returns the values of dkms.conf from a build's record or, without a record, the evaluated
/// values.
fn known_values(pair: &Pair) -> Option<&Values> {
    let record = pair.built.as_ref().and_then(|built| built.record.as_ref());
    record.map(|record| &record.values).or(pair.values())
}

/// Renames the module `old` to `new`.
///
/// If the rename is interrupted, the next run either finds the module under its old name and
/// repeats the rename, or finds the module under its new name.
fn rename(machine: &Machine, old: &ModuleId, new: &ModuleId) -> Result<(), FileError> {
    let trees = &machine.trees;
    let (from, to) = (trees.version(old), trees.version(new));
    let (renamed, others): (Vec<Added>, Vec<Added>) =
        TreeState::read(trees).modules.into_iter().partition(|added| added.id == *old);
    let built: Vec<BuiltFor> = renamed.into_iter().flat_map(|added| added.kernels).collect();
    durable::create_dirs(&trees.module(&new.name))?;
    for built in &built {
        let path = Record::path(trees, old, &built.kernel, &built.arch);
        if let Some(record) = Record::read(&path) {
            let kernel = trees.kernel(&built.kernel);
            for object in &record.objects {
                move_link(machine, &kernel.join(object.path()), &from, &to)?;
            }
            Record { module: new.clone(), ..record }.write(&path)?;
        }
        let link = trees.installed_link(&new.name, &built.kernel, &built.arch);
        if built.installed && link.symlink_metadata().is_err() {
            let target = Path::new(new.version.as_str()).join(&built.kernel).join(&built.arch);
            durable::replace_link(&link, &target)?;
        }
    }
    let kernels = Kernels::read(trees).unwrap_or_default().all;
    for kernel in &kernels {
        // A build that failed under the old name can succeed now.
        forget_failure(machine, old, &kernel.release)?;
        let mut inventory = Inventory::read(trees, &kernel.release);
        if inventory.rename(old, new) {
            inventory.write()?;
        }
    }
    fs::rename(&from, &to).map_err(FileError::when("rename", &from))?;
    for built in built.iter().filter(|built| built.installed) {
        let link = trees.installed_link(&old.name, &built.kernel, &built.arch);
        durable::remove_file_if_there(&link)?;
    }
    let originals = trees.all_originals(&old.name);
    if others.iter().all(|other| other.id.name != old.name) && originals.is_dir() {
        // This fails if the new name has originals of its own, which then take precedence.
        let _ = fs::rename(&originals, trees.all_originals(&new.name));
    }
    // This fails if the old name has other versions.
    let _ = fs::remove_dir(trees.module(&old.name));
    rename_pending(machine, old, new)
}

/// If the symbolic link `path` leads to a file below `from`, redirects it to the same file below
/// `to`. Does nothing if `path` is not a link, which is the case without `symlink_modules`.
fn move_link(machine: &Machine, path: &Path, from: &Path, to: &Path) -> Result<(), FileError> {
    let text = |dir: &Path| symlinks::text_for(&machine.trees.root, dir);
    let Ok(target) = fs::read_link(path) else { return Ok(()) };
    match target.strip_prefix(text(from)) {
        Ok(below) => durable::replace_link(path, &text(to).join(below)),
        Err(_) => Ok(()),
    }
}

/// Renames the module `old` in the list of pending work.
fn rename_pending(machine: &Machine, old: &ModuleId, new: &ModuleId) -> Result<(), FileError> {
    let list = PendingList::of(&machine.trees);
    for work in list.read() {
        let renamed = match &work {
            PendingWork::Install { module, kernel } if module == old => {
                PendingWork::Install { module: new.clone(), kernel: kernel.clone() }
            }
            PendingWork::Uninstall { module, kernel } if module == old => {
                PendingWork::Uninstall { module: new.clone(), kernel: kernel.clone() }
            }
            PendingWork::Remove(module) if module == old => PendingWork::Remove(new.clone()),
            _ => continue,
        };
        list.write(&renamed)?;
        list.clear(&work)?;
    }
    Ok(())
}
