//! Making a finished build visible as `T/M/V/K/A`, whole.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::durable::{self, FileError};
use crate::record::{self, Record};

/// Makes the directory `staging` the directory `target`.
///
/// Where there is one already, its files are renamed over one by one and the record last: a
/// directory cannot be exchanged everywhere (overlayfs), and as long as the old record stands, it
/// says that this has to be built.
pub(crate) fn publish(staging: &Path, target: &Path) -> Result<(), FileError> {
    if fs::rename(staging, target).is_ok() {
        return match target.parent() {
            Some(parent) => durable::sync_dir(parent),
            None => Ok(()),
        };
    }
    let published = publish_over(staging, target);
    // Whatever became of it, nothing is left of the staging directory.
    let removed = durable::remove_tree(staging);
    published.and(removed.map(|_| ()))
}

fn publish_over(staging: &Path, target: &Path) -> Result<(), FileError> {
    // What the old build has in the kernel's directory stays there, and known, until the new one
    // is installed.
    let old = Record::read(&target.join(record::FILE_NAME));
    for part in ["module", "log"] {
        let (from, to) = (staging.join(part), target.join(part));
        durable::create_dirs(&to)?;
        let new = file_names(&from)?;
        for name in &new {
            let place = to.join(name);
            fs::rename(from.join(name), &place).map_err(FileError::when("replace", &place))?;
        }
        for name in file_names(&to)?.difference(&new) {
            durable::remove_tree(&to.join(name))?;
        }
    }
    let path = staging.join(record::FILE_NAME);
    if let (Some(old), Some(new)) = (old, Record::read(&path)) {
        Record { placed: old.placed, ..new }.write(&path)?;
    }
    let place = target.join(record::FILE_NAME);
    fs::rename(&path, &place).map_err(FileError::when("replace", &place))?;
    durable::sync_dir(target)
}

fn file_names(dir: &Path) -> Result<BTreeSet<OsString>, FileError> {
    fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .map_err(FileError::when("list", dir))
}
