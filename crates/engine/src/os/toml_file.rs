//! Reads small TOML files and writes them atomically.

use std::os::unix::fs::FileExt;
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

/// Writes `content` like [`write()`], but syncs only what `durability` says.
///
/// # Errors
/// [`FileError`] if the file or a directory cannot be written.
pub(crate) fn write_with<T: Serialize>(
    path: &Path,
    content: &T,
    durability: Durability,
) -> Result<(), FileError> {
    let text = to_text(path, content)?;
    if let Some(dir) = path.parent() {
        durable::create_dirs(dir)?;
    }
    durable::write_with(path, text.as_bytes(), durability)
}

/// Replaces the content of the existing file `path` with `content` as TOML, and syncs the file.
///
/// If the length stays the same, overwrites the file in place and does not sync its directory. The
/// file must be smaller than a sector, because disks write a sector atomically.
///
/// # Errors
/// [`FileError`] if the file cannot be written.
pub(crate) fn overwrite<T: Serialize>(path: &Path, content: &T) -> Result<(), FileError> {
    let text = to_text(path, content)?;
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    if !std::fs::metadata(path).is_ok_and(|meta| meta.len() == length) {
        return write(path, content);
    }
    let file = std::fs::File::options().write(true).open(path);
    file.and_then(|file| file.write_all_at(text.as_bytes(), 0).and_then(|()| file.sync_all()))
        .map_err(FileError::when("write", path))
}

fn to_text<T: Serialize>(path: &Path, content: &T) -> Result<String, FileError> {
    toml::to_string(content).map_err(std::io::Error::other).map_err(FileError::when("write", path))
}

/// Reads the TOML file `path`. Returns `None` if the file cannot be read or is not valid.
///
/// A file that is not valid causes only a warning in the log, because no file read with this
/// function is essential.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = std::fs::read_to_string(path).ok()?;
    toml::from_str(&text).map_err(|error| log::warn!("{}: ignored: {error}", path.display())).ok()
}
