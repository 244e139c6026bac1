//! Taking in what comes from elsewhere: a source into the source tree, builds into the dkms tree.

use std::fs;
use std::path::Path;

use crate::dkms_tree::{Record, STAGING};
use crate::facts::ImportedBuild;
use crate::machine::Machine;
use crate::names::ModuleId;
use crate::os::copy_tree;
use crate::os::durable::{self, FileError};

/// Copies a source to `S/M-V`. What is there is replaced as a whole, and only by a whole copy;
/// dkms copies into it, so that files of the old source stay among the new.
pub(crate) fn source(machine: &Machine, id: &ModuleId, from: &Path) -> Result<(), FileError> {
    let tree = &machine.trees.source;
    durable::create_dirs(tree)?;
    let to = tree.join(id.source_dir());
    let room = tempfile::Builder::new().prefix(durable::UNFINISHED).tempdir_in(tree);
    let room = room.map_err(FileError::when("write to", tree))?;
    let whole = room.path().join("source");
    copy_tree::copy_tree(from, &whole)?;
    // Where a directory cannot be renamed (overlayfs), it is removed as it stands.
    if to.symlink_metadata().is_ok() && fs::rename(&to, room.path().join("old")).is_err() {
        durable::remove_tree(&to)?;
    }
    fs::rename(&whole, &to).map_err(FileError::when("place", &to))?;
    durable::sync_dir(tree)
}

/// Copies what was built elsewhere to `T/M/V/K/A`. Says whether it did: what is there stays
/// unless it is to be replaced.
pub(crate) fn build(
    machine: &Machine,
    id: &ModuleId,
    build: &ImportedBuild,
    replace: bool,
) -> Result<bool, FileError> {
    let to = machine.trees.built(id, &build.kernel, &build.arch);
    if to.exists() && !replace {
        return Ok(false);
    }
    let parent = machine.trees.version(id).join(&build.kernel);
    durable::create_dirs(&parent)?;
    let whole = parent.join(format!("{STAGING}{}_load", build.arch));
    durable::remove_tree(&whole)?;
    copy_tree::copy_tree(&build.dir, &whole)?;
    durable::remove_tree(&to)?;
    fs::rename(&whole, &to).map_err(FileError::when("place", &to))?;
    // A note that we made elsewhere is not about this machine.
    let note = Record::path(&machine.trees, id, &build.kernel, &build.arch);
    durable::remove_file_if_there(&note)?;
    durable::sync_dir(&parent)?;
    Ok(true)
}
