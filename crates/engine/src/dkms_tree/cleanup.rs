//! Removes what killed runs left in the dkms tree, and all our own files when the package leaves.

use std::fs;
use std::path::PathBuf;

use super::build_cache::BuildCache;
use super::staging::remove_staging;
use super::state::TreeState;
use crate::machine::{Machine, Trees};
use crate::os::durable::{self, FileError};
use crate::os::symlinks;

/// Removes our own files from the dkms tree, but no kept source that a module needs.
pub(crate) fn leave(machine: &Machine) -> Result<(), FileError> {
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

/// Removes what killed runs left unfinished in our own directories. Only under the lock.
pub(crate) fn remove_strays(machine: &Machine) -> Result<(), FileError> {
    let trees = &machine.trees;
    let own = [
        trees.source.clone(),
        trees.dkms.clone(),
        trees.pending(),
        trees.failures(),
        trees.cache(),
    ];
    for dir in own.into_iter().chain([trees.dkms.join(".kept"), trees.build_programs()]) {
        durable::remove_unfinished(&dir)?;
    }
    BuildCache::of(trees).remove_strays()?;
    for added in TreeState::read(trees).modules {
        durable::remove_unfinished(&trees.module(&added.id.name))?;
        durable::remove_unfinished(&trees.version(&added.id))?;
        for built in added.kernels {
            durable::remove_unfinished(&trees.built(&added.id, &built.kernel, &built.arch))?;
            remove_staging(&trees.version(&added.id).join(&built.kernel))?;
        }
    }
    durable::remove_tree(&trees.workplaces())?;
    // What was the last in it is gone now: the boot unit looks whether it is empty.
    let _ = fs::remove_dir(trees.pending());
    Ok(())
}

/// Removes the directories of failures, of their logs and of builds if nothing is in them any more. Not while
/// builds run: they make them when they begin.
pub(crate) fn remove_empty_directories(trees: &Trees) {
    for dir in [trees.failures(), trees.dkms.join(".log"), trees.workplaces()] {
        let _ = fs::remove_dir(dir);
    }
}
