//! Lists directories in a fixed order.

use std::fs;
use std::path::{Path, PathBuf};

use dkms_engine::os::paths;

/// Returns the sorted file names in `dir`, a path on the machine at `root`. Returns no names if the
/// directory cannot be read.
pub(crate) fn names(root: &Path, dir: &Path) -> impl Iterator<Item = String> {
    let files = with_suffix(&paths::below(root, dir), "").into_iter();
    files.filter_map(|file| Some(file.file_name()?.to_str()?.to_owned()))
}

/// Returns the sorted paths of all files in `dir` whose names end in `suffix`. Returns an empty
/// list if the directory cannot be read.
pub(crate) fn with_suffix(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().ends_with(suffix.as_bytes()))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}
