//! Reads small TOML files and writes them atomically.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::os::durable::{self, Durability, FileError};

/// Writes `content` as TOML to the file `path`, and creates missing parent directories. Syncs the
/// file and its directory.
///
/// # Errors
/// [`FileError`] if the file or a directory cannot be written.
pub(crate) fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), FileError> {
    write_with(path, content, Durability::Full)
}

/// Writes `content` like [`write`], but syncs only what `durability` says.
///
/// # Errors
/// [`FileError`] if the file or a directory cannot be written.
pub(crate) fn write_with<T: Serialize>(
    path: &Path,
    content: &T,
    durability: Durability,
) -> Result<(), FileError> {
    let text = toml::to_string(content)
        .map_err(std::io::Error::other)
        .map_err(FileError::when("write", path))?;
    if let Some(dir) = path.parent() {
        durable::create_dirs(dir)?;
    }
    durable::write_with(path, text.as_bytes(), durability)
}

/// Reads the TOML file `path`. Returns `None` if the file cannot be read or is not valid.
///
/// A file that is not valid causes only a warning in the log, because no file read with this
/// function is essential.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = std::fs::read_to_string(path).ok()?;
    toml::from_str(&text).map_err(|error| log::warn!("{}: ignored: {error}", path.display())).ok()
}
