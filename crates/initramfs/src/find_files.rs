//! Finding files of the machine below its root.

use std::fs;
use std::path::{Path, PathBuf};

/// A path of the machine, as seen from outside of `root`.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The names in a directory of the machine, in order; none if there is no directory.
pub(crate) fn names(root: &Path, dir: &Path) -> impl Iterator<Item = String> {
    let files = with_suffix(&below(root, dir), "").into_iter();
    files.filter_map(|file| Some(file.file_name()?.to_str()?.to_owned()))
}

/// The files of a directory whose names end so, in the order of their names; none if there is no directory.
pub(crate) fn with_suffix(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().ends_with(suffix.as_bytes()))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}
