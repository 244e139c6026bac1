//! The files that a module's own scripts have written into its source, stored between runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Trees;
use crate::os::digest::Digest;
use crate::os::durable::FileError;
use crate::os::toml_file;
use crate::os::walk::Contents;

/// The entries of a source that the module's scripts have added, changed or removed, by their
/// relative paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct WrittenFiles(BTreeMap<String, Written>);

/// The states of an entry before and after the module's scripts ran. A state is `None` if the entry
/// did not exist at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    /// The state before any script changed the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original: Option<Digest>,
    /// The state in which the last script left the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<Digest>,
}

impl WrittenFiles {
    /// Reads the written files of all modules, by the names of their source directories.
    pub(crate) fn read_all(trees: &Trees) -> BTreeMap<String, Self> {
        toml_file::read(&file(trees)).unwrap_or_default()
    }

    /// Stores the written files of all modules, except those whose source no longer exists.
    pub(super) fn write_all(all: &BTreeMap<String, Self>, trees: &Trees) -> Result<(), FileError> {
        let kept = trees.dkms.join(".kept");
        let exists = |name: &str| trees.source.join(name).exists() || kept.join(name).exists();
        let all: BTreeMap<_, _> =
            all.iter().filter(|(name, written)| exists(name) && !written.0.is_empty()).collect();
        toml_file::write(&file(trees), &all)
    }

    /// Records that scripts changed the entry `path` from the state `before` to the state `after`.
    pub(super) fn add(&mut self, path: &Path, before: Option<Digest>, after: Option<Digest>) {
        // TOML requires UTF-8. Files with other names count as changed by the user.
        let Some(path) = path.to_str() else { return };
        let known = self.0.get(path).filter(|known| known.written == before);
        let original = known.map_or(before, |known| known.original);
        if original == after {
            self.0.remove(path);
        } else {
            self.0.insert(path.to_owned(), Written { original, written: after });
        }
    }

    /// Returns the paths of all entries.
    pub(super) fn paths(&self) -> BTreeSet<PathBuf> {
        self.0.keys().map(PathBuf::from).collect()
    }

    /// Returns `contents` with the changes by scripts undone. An entry keeps its state if the user
    /// or a package has changed it since the last script ran.
    pub(crate) fn undo(&self, mut contents: Contents) -> Contents {
        for (path, Written { original, written }) in &self.0 {
            let path = PathBuf::from(path);
            if contents.get(&path) == written.as_ref() {
                match original {
                    Some(original) => contents.insert(path, *original),
                    None => contents.remove(&path),
                };
            }
        }
        contents
    }

    /// Returns a digest of the paths and states.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of_bytes(format!("{:?}", self.0).as_bytes())
    }
}

fn file(trees: &Trees) -> PathBuf {
    trees.cache().join("scripts.toml")
}
