//! The directories that builds gather their results in before these become `T/M/V/K/A`.

use std::fs;
use std::path::Path;

use crate::os::durable::{self, FileError};

/// How the names of directories start in which a build gathers its result: dkms's own, which it
/// sweeps too.
pub(crate) const STAGING: &str = ".tmp_";

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
