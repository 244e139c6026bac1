//! Cleans the dkms tree after killed runs, and when the alpm-dkms package is removed.

use std::fs;
use std::path::{Path, PathBuf};

use super::build_cache::BuildCache;
use super::pending::PendingList;
use super::staging::STAGING;
use super::state::{TreeState, is_not_a_kernel, is_not_a_version};
use crate::machine::{Machine, Trees};
use crate::os::durable::{self, FileError, UNFINISHED};
use crate::os::symlinks;

/// Removes alpm-dkms's own files from the dkms tree, except the kept sources that modules still
/// use.
pub(crate) fn remove_own_files(machine: &Machine) -> Result<(), FileError> {
    let trees = &machine.trees;
    let needed: Vec<PathBuf> = TreeState::read(trees)
        .modules
        .iter()
        .filter_map(|added| symlinks::resolve(&trees.root, &trees.source_link(&added.id)).ok())
        .collect();
    let kept = trees.dkms.join(".kept");
    for entry in fs::read_dir(&kept).into_iter().flatten().flatten() {
        if !needed.contains(&entry.path()) {
            durable::remove_tree(&entry.path())?;
        }
    }
    durable::remove_empty_dirs_up_to(&kept, &trees.dkms)?;
    let logs = trees.dkms.join(".log");
    let ours = [
        trees.pending(),
        trees.failures(),
        trees.cache(),
        trees.images(),
        trees.build_programs(),
        trees.workplaces(),
        logs,
        trees.notice(),
        trees.lock(),
    ];
    for path in ours {
        durable::remove_tree(&path)?;
    }
    Ok(())
}

/// Removes the unfinished files and directories of killed runs. The caller must hold the lock.
pub(crate) fn remove_strays(machine: &Machine) -> Result<(), FileError> {
    let trees = &machine.trees;
    let own = [
        trees.source.clone(),
        trees.dkms.clone(),
        trees.pending(),
        trees.failures(),
        trees.cache(),
        trees.images(),
    ];
    for dir in own.into_iter().chain([trees.dkms.join(".kept"), trees.build_programs()]) {
        durable::remove_unfinished(&dir)?;
    }
    PendingList::of(trees).remove_empty_entries()?;
    // A trial run uses the cache of another tree, in which another run may be storing builds.
    if machine.trial.is_none() {
        BuildCache::of(trees).remove_strays()?;
    }
    remove_module_strays(&trees.dkms, 0)?;
    durable::remove_tree(&trees.workplaces())?;
    durable::remove_tree(&trees.sharing_compilers())?;
    // This succeeds only if no work is pending.
    let _ = fs::remove_dir(trees.pending());
    Ok(())
}

/// Removes the temporary files and staging directories that killed runs left in the modules'
/// directories below `dir`.
///
/// `depth` is the level of `dir`: 0 for the dkms tree `T`, 1 for `T/M`, 2 for `T/M/V`, 3 for
/// `T/M/V/K`, 4 for `T/M/V/K/A`.
fn remove_module_strays(dir: &Path, depth: usize) -> Result<(), FileError> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let starts_with = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        if depth > 0 && starts_with(UNFINISHED) || depth == 3 && starts_with(STAGING) {
            durable::remove_tree(&path)?;
            continue;
        }
        let is_wanted = name.to_str().is_some_and(|name| match depth {
            0 => !name.starts_with('.'),
            1 => !is_not_a_version(name),
            2 => !is_not_a_kernel(name),
            3 => true,
            _ => false,
        });
        if is_wanted && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_module_strays(&path, depth + 1)?;
        }
    }
    Ok(())
}

/// Removes the directories for failures, logs and workplaces if they are empty.
///
/// Must not be called while a build is running, since builds create these directories when they
/// start.
pub(crate) fn remove_empty_directories(trees: &Trees) {
    for dir in [trees.failures(), trees.dkms.join(".log"), trees.workplaces()] {
        let _ = fs::remove_dir(dir);
    }
}
