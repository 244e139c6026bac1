//! Taking modules away: out of a kernel's directory, out of the dkms tree, and what a removed
//! kernel leaves behind.

use std::fs;
use std::path::{Path, PathBuf};

use crate::build;
use crate::cache::Cache;
use crate::durable::{self, FileError};
use crate::failure::Failure;
use crate::index;
use crate::links;
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::place;
use crate::site::Site;
use crate::state::State;
use crate::trees::Trees;

/// How the names of directories start in which a build gathers its result: dkms's own, which it
/// sweeps too.
pub(crate) const STAGING: &str = ".tmp_";

/// Takes the objects of a module out of a kernel's directory. What stands at their places but is
/// not what we placed stays, and is named in the answer.
pub(crate) fn uninstall(
    site: &Site,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Result<Vec<PathBuf>, Failure> {
    let foreign = place::take_away(site, id, kernel, &[])?;
    place::restore_originals(site, id, kernel)?;
    place::note_placed(site, id, kernel, &[])?;
    if is_installed(site, id, kernel) {
        let link = site.trees.installed_link(&id.name, kernel, &site.arch);
        durable::remove_file_if_there(&link)?;
    }
    Ok(foreign)
}

/// Whether the link says that this version is the installed one.
pub(crate) fn is_installed(site: &Site, id: &ModuleId, kernel: &KernelRelease) -> bool {
    let link = site.trees.installed_link(&id.name, kernel, &site.arch);
    fs::read_link(link).is_ok_and(|target| {
        let mut parts = target.iter().rev();
        parts.next() == Some(site.arch.as_str().as_ref())
            && parts.next() == Some(kernel.as_str().as_ref())
            && parts.next() == Some(id.version.as_str().as_ref())
    })
}

/// Forgets what was built of a module for a kernel.
pub(crate) fn unbuild(site: &Site, id: &ModuleId, kernel: &KernelRelease) -> Result<(), FileError> {
    let trees = &site.trees;
    let parent = trees.version(id).join(kernel);
    place::take_away(site, id, kernel, &[])?;
    let built = trees.built(id, kernel, &site.arch);
    // Out of sight at once: half of `K/A` would be neither built nor gone. Where a directory
    // cannot be renamed (overlayfs), it is removed as it stands.
    let going = parent.join(format!("{STAGING}{}_gone", site.arch));
    if fs::rename(&built, &going).is_err() {
        durable::remove_tree(&built)?;
    }
    remove_staging(&parent)?;
    durable::remove_empty_dirs_up_to(&parent, &trees.version(id))?;
    build::forget_failure(site, id, kernel)
}

/// What a killed run left where builds gather their results.
pub(crate) fn remove_staging(parent: &Path) -> Result<(), FileError> {
    let Ok(entries) = fs::read_dir(parent) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(STAGING.as_bytes()) {
            durable::remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Forgets a module of which nothing is built any more.
pub(crate) fn deregister(
    site: &Site,
    id: &ModuleId,
    kernels: impl Iterator<Item = KernelRelease>,
) -> Result<(), FileError> {
    let trees = &site.trees;
    for kernel in kernels {
        build::forget_failure(site, id, &kernel)?;
    }
    let kept = trees.kept(id);
    durable::remove_tree(&kept)?;
    durable::remove_tree(&trees.version(id))?;
    if let Some(dir) = kept.parent() {
        durable::remove_empty_dirs_up_to(dir, &trees.dkms)?;
    }
    let module = trees.module(&id.name);
    remove_dangling_links(&module, &site.arch)?;
    durable::remove_empty_dirs_up_to(&module.join("original_module"), &module)?;
    durable::remove_empty_dirs_up_to(&module, &trees.dkms)
}

/// `kernel-K-A` links to nothing: what an interrupted removal left.
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

/// Removes what is left of a kernel that is gone, if that is nothing but depmod's files and empty
/// directories; anything else is somebody's, and the whole directory stays.
pub(crate) fn sweep(site: &Site, kernel: &KernelRelease) -> Result<bool, FileError> {
    let dir = site.trees.kernel(kernel);
    if !dir.is_dir() || dir.is_symlink() {
        return Ok(true);
    }
    for entry in walkdir::WalkDir::new(&dir).min_depth(1) {
        let entry = entry.map_err(std::io::Error::from).map_err(FileError::when("read", &dir))?;
        let name = entry.file_name().to_string_lossy();
        let depmods = entry.depth() == 1 && index::WRITTEN.contains(&name.as_ref());
        let unfinished = name.starts_with(durable::UNFINISHED);
        if !entry.file_type().is_dir() && !depmods && !unfinished {
            return Ok(false);
        }
    }
    durable::remove_tree(&dir)?;
    Ok(true)
}

/// Removes our own files from the dkms tree, but no kept source that a module needs.
pub(crate) fn leave(site: &Site) -> Result<(), FileError> {
    let trees = &site.trees;
    let needed: Vec<PathBuf> = State::read(trees)
        .modules
        .iter()
        .filter_map(|added| links::resolve(&trees.root, &trees.source_link(&added.id)).ok())
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
        trees.debts(),
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
pub(crate) fn strays(site: &Site) -> Result<(), FileError> {
    let trees = &site.trees;
    let own =
        [trees.source.clone(), trees.dkms.clone(), trees.debts(), trees.failures(), trees.cache()];
    for dir in own.into_iter().chain([trees.dkms.join(".kept"), trees.build_programs()]) {
        durable::remove_unfinished(&dir)?;
    }
    Cache::of(trees).remove_strays()?;
    for added in State::read(trees).modules {
        durable::remove_unfinished(&trees.module(&added.id.name))?;
        durable::remove_unfinished(&trees.version(&added.id))?;
        for built in added.kernels {
            durable::remove_unfinished(&trees.built(&added.id, &built.kernel, &built.arch))?;
            remove_staging(&trees.version(&added.id).join(&built.kernel))?;
        }
    }
    durable::remove_tree(&trees.workplaces())?;
    // What was the last in it is gone now: the boot unit looks whether it is empty.
    let _ = fs::remove_dir(trees.debts());
    Ok(())
}

/// Removes the directories of failures, of their logs and of builds if nothing is in them any more. Not while
/// builds run: they make them when they begin.
pub(crate) fn empty_directories(trees: &Trees) {
    for dir in [trees.failures(), trees.dkms.join(".log"), trees.workplaces()] {
        let _ = fs::remove_dir(dir);
    }
}
