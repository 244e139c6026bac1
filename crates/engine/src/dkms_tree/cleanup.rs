//! Cleans the dkms tree after killed runs, and when the alpm-dkms package is removed.

use std::fs;
use std::path::PathBuf;

use super::build_cache::BuildCache;
use super::pending::PendingList;
use super::staging::remove_staging;
use super::state::TreeState;
use crate::machine::{Machine, Trees};
use crate::os::durable::{self, FileError};
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
    for added in TreeState::read(trees).modules {
        durable::remove_unfinished(&trees.module(&added.id.name))?;
        durable::remove_unfinished(&trees.version(&added.id))?;
        for built in added.kernels {
            durable::remove_unfinished(&trees.built(&added.id, &built.kernel, &built.arch))?;
            remove_staging(&trees.version(&added.id).join(&built.kernel))?;
        }
    }
    durable::remove_tree(&trees.workplaces())?;
    durable::remove_tree(&trees.sharing_compilers())?;
    // This succeeds only if no work is pending.
    let _ = fs::remove_dir(trees.pending());
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
