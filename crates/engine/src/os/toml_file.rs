//! Small TOML files, written whole or not at all.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::os::durable::{self, FileError};

/// Writes `content` to `path`, whose directory is made if it is missing.
///
/// # Errors
/// [`FileError`] if the file cannot be written.
pub(crate) fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), FileError> {
    let text = toml::to_string(content)
        .map_err(std::io::Error::other)
        .map_err(FileError::when("write", path))?;
    if let Some(dir) = path.parent() {
        durable::create_dirs(dir)?;
    }
    durable::write(path, text.as_bytes())
}

/// Reads `path`. None if it is not there, or (with a line in the log) not what it should be: every
/// page of ours can be done without.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = std::fs::read_to_string(path).ok()?;
    toml::from_str(&text).map_err(|error| log::warn!("{} is ignored: {error}", path.display())).ok()
}
