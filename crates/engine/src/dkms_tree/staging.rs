//! Staging directories, in which builds collect their results before publishing them as
//! `T/M/V/K/A`.

use std::fs;
use std::path::Path;

use crate::os::durable::{self, FileError};

/// The prefix of the names of staging directories. dkms uses the same prefix.
pub(crate) const STAGING: &str = ".tmp_";

/// Removes the staging directories in `parent` that killed runs left behind.
pub(crate) fn remove_staging(parent: &Path) -> Result<(), FileError> {
    let Ok(entries) = fs::read_dir(parent) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(STAGING.as_bytes()) {
            durable::remove_tree(&entry.path())?;
        }
    }
    Ok(())
}
