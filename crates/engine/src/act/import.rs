//! Imports sources into the source tree, and existing builds into the dkms tree.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::dkms_tree::{Record, STAGING, detach_links};
use crate::facts::ImportedBuild;
use crate::machine::Machine;
use crate::names::ModuleId;
use crate::os::copy_tree::{self, Copied};
use crate::os::durable::{self, FileError};

/// Copies the directory `from` to the source tree, as `S/M-V`. Only root can change the copy.
///
/// An existing directory is replaced as a whole once the copy is complete. dkms instead copies into
/// the existing directory, so old files remain in it.
pub(crate) fn source(machine: &Machine, id: &ModuleId, from: &Path) -> Result<Copied, FileError> {
    let tree = &machine.trees.source;
    durable::create_dirs(tree)?;
    let to = tree.join(id.source_dir());
    let staging = tempfile::Builder::new()
        .prefix(durable::UNFINISHED)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(tree);
    let staging = staging.map_err(FileError::when("write to", tree))?;
    let copy = staging.path().join("source");
    let copied = copy_tree::take_tree(from, &copy)?;
    let old = staging.path().join("old");
    // overlayfs cannot rename some directories. They are removed in place.
    if to.symlink_metadata().is_ok() && fs::rename(&to, &old).is_err() {
        durable::remove_tree(&to)?;
    }
    if let Err(error) = fs::rename(&copy, &to) {
        let _ = fs::rename(&old, &to);
        return Err(FileError::when("place", &to)(error));
    }
    durable::sync_dir(tree)?;
    Ok(copied)
}

/// Copies a build from another machine to `T/M/V/K/A`. Returns false, and copies nothing, if a
/// build already exists there and `replace` is false.
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
    let staging = parent.join(format!("{STAGING}{}_load", build.arch));
    durable::remove_tree(&staging)?;
    copy_tree::take_tree(&build.dir, &staging)?;
    detach_links(machine, id, &build.kernel)?;
    durable::remove_tree(&to)?;
    fs::rename(&staging, &to).map_err(FileError::when("place", &to))?;
    // A record from another machine does not apply to this one.
    let record = Record::path(&machine.trees, id, &build.kernel, &build.arch);
    durable::remove_file_if_there(&record)?;
    durable::sync_dir(&parent)?;
    Ok(true)
}
