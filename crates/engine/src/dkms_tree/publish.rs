//! Publishes a finished build as `T/M/V/K/A`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::dkms_tree::FILE_NAME;
use crate::os::durable::{self, FileError};

/// Moves the finished build in `staging` to `target`, replacing any existing build.
///
/// If `target` exists, its files are replaced one by one, because overlayfs cannot always exchange
/// directories. The record is replaced last: after an interruption, the old record makes the next
/// run rebuild the module.
///
/// The run syncs the directories at its end.
pub(crate) fn publish(staging: &Path, target: &Path) -> Result<(), FileError> {
    if fs::rename(staging, target).is_ok() {
        return Ok(());
    }
    let published = publish_over(staging, target);
    // Remove the staging directory even after a failure.
    let removed = durable::remove_tree(staging);
    published.and(removed.map(|_| ()))
}

fn publish_over(staging: &Path, target: &Path) -> Result<(), FileError> {
    replace_entries(staging, target)?;
    let place = target.join(FILE_NAME);
    fs::rename(staging.join(FILE_NAME), &place).map_err(FileError::when("replace", &place))
}

/// Replaces the entries of `to` with those of `from`, but leaves the records of both directories in
/// place.
fn replace_entries(from: &Path, to: &Path) -> Result<(), FileError> {
    durable::create_dirs(to)?;
    let mut new = file_names(from)?;
    let record = OsString::from(FILE_NAME);
    for name in new.iter().filter(|name| **name != record) {
        let (file, place) = (from.join(name), to.join(name));
        let is_dir = |path: &Path| path.is_dir() && !path.is_symlink();
        if is_dir(&file) != is_dir(&place) {
            durable::remove_tree(&place)?;
        }
        if is_dir(&file) {
            replace_entries(&file, &place)?;
        } else {
            fs::rename(&file, &place).map_err(FileError::when("replace", &place))?;
        }
    }
    new.insert(record);
    for name in file_names(to)?.difference(&new) {
        durable::remove_tree(&to.join(name))?;
    }
    Ok(())
}

fn file_names(dir: &Path) -> Result<BTreeSet<OsString>, FileError> {
    fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .map_err(FileError::when("list", dir))
}
