//! Moves registrations under a wrong split of the source directory's name to the right module.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::conf::is_source;
use crate::dkms_tree::{Added, PendingList, PendingWork, Record, TreeState, forget_failure};
use crate::facts;
use crate::machine::{Kernels, Machine};
use crate::names::ModuleId;
use crate::os::durable::{self, FileError};
use crate::os::symlinks;

/// Renames modules that dkms's hook or an old version of alpm-dkms registered under a split at the
/// last dash, if the dkms.conf splits the directory's name elsewhere. Their builds stay installed.
/// Returns one message per module.
///
/// Leaves the modules in `except` alone, which the command line names. The caller must hold the
/// lock and must not have read any facts yet.
pub fn carry_over_registrations(machine: &Machine, except: &BTreeSet<ModuleId>) -> Vec<String> {
    let mut said = Vec::new();
    // Without a dash before the last one, a directory's name has only one split.
    let mut names = fs::read_dir(&machine.trees.dkms).into_iter().flatten().flatten();
    if !names.any(|entry| entry.file_name().as_encoded_bytes().contains(&b'-')) {
        return said;
    }
    for added in TreeState::read(&machine.trees).modules {
        let old = &added.id;
        let Some(new) = right_module(machine, &added).filter(|new| new != old) else { continue };
        if except.contains(old) || machine.trees.version(&new).symlink_metadata().is_ok() {
            continue;
        }
        said.push(match rename(machine, &added, &new) {
            Ok(()) => format!("note: {old}: renamed to {new} to match its dkms.conf"),
            Err(error) => format!("warning: {old}: cannot rename to {new}: {error}"),
        });
    }
    said
}

/// Returns the module that the conf of `added` names. Returns `None` if the directory of its source
/// is not ambiguous, if its registration is not the split at the last dash, or if the conf names
/// another directory.
fn right_module(machine: &Machine, added: &Added) -> Option<ModuleId> {
    let (trees, id) = (&machine.trees, &added.id);
    let dir = id.source_dir();
    let at_last_dash = ModuleId::from_source_dir(&dir).is_ok_and(|split| split == *id);
    if !ModuleId::is_ambiguous(&dir) || !at_last_dash {
        return None;
    }
    // The record of a build contains the values, so that most runs evaluate no conf.
    let mut records = added
        .kernels
        .iter()
        .filter_map(|built| Record::read(&Record::path(trees, id, &built.kernel, &built.arch)));
    if let Some(record) = records.next() {
        return facts::named(&dir, &record.values);
    }
    let sources = [trees.source.join(&dir), trees.kept(id)];
    let source = sources.iter().find(|source| is_source(source))?;
    facts::named_by_conf(machine, &dir, source)
}

/// Renames the module `added` to `new`.
///
/// If this is interrupted, the next run finds the module either under its old name, and repeats the
/// rename, or under its new name.
fn rename(machine: &Machine, added: &Added, new: &ModuleId) -> Result<(), FileError> {
    let (trees, old) = (&machine.trees, &added.id);
    let (from, to) = (trees.version(old), trees.version(new));
    durable::create_dirs(&trees.module(&new.name))?;
    for built in &added.kernels {
        let path = Record::path(trees, old, &built.kernel, &built.arch);
        if let Some(record) = Record::read(&path) {
            let kernel = trees.kernel(&built.kernel);
            for placed in &record.placed {
                move_link(machine, &kernel.join(&placed.path), &from, &to)?;
            }
            Record { module: new.clone(), ..record }.write(&path)?;
        }
        let link = trees.installed_link(&new.name, &built.kernel, &built.arch);
        if built.installed && link.symlink_metadata().is_err() {
            let target = Path::new(new.version.as_str()).join(&built.kernel).join(&built.arch);
            durable::replace_link(&link, &target)?;
        }
    }
    // A build that failed under the old name can succeed now.
    let kernels = Kernels::read(trees).unwrap_or_default().all;
    for kernel in &kernels {
        forget_failure(machine, old, &kernel.release)?;
    }
    fs::rename(&from, &to).map_err(FileError::when("rename", &from))?;
    for built in added.kernels.iter().filter(|built| built.installed) {
        let link = trees.installed_link(&old.name, &built.kernel, &built.arch);
        durable::remove_file_if_there(&link)?;
    }
    let originals = trees.all_originals(&old.name);
    let others = TreeState::read(trees).modules.iter().any(|other| other.id.name == old.name);
    if !others && originals.is_dir() {
        // This fails if the new name has originals of its own, which then take precedence.
        let _ = fs::rename(&originals, trees.all_originals(&new.name));
    }
    // This fails if the old name has other versions.
    let _ = fs::remove_dir(trees.module(&old.name));
    rename_pending(machine, old, new)
}

/// Points the symbolic link `path` from a file below `from` to the same file below `to`. Does
/// nothing if `path` is another kind of file, as it is without `symlink_modules`.
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
