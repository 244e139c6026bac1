//! The directory for the scratch space of one preflight.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process;

use dkms_engine::machine::{Lock, Trees};
use dkms_engine::os::durable::{self, FileError};

use crate::not_tried::NotTried;

/// The prefix of the directories' names in the dkms tree.
pub(crate) const PREFIX: &str = ".trial-";

/// The directory for the scratch space of one preflight. It is locked while the preflight runs, which
/// shows other preflights that it is in use.
#[derive(Debug)]
pub(crate) struct ScratchDir {
    path: PathBuf,
    _in_use: File,
}

impl ScratchDir {
    /// Creates the directory, and removes those of killed preflights. The caller holds the lock of
    /// the trees, because a new directory is not in use at first.
    pub(crate) fn create(trees: &Trees, _lock: &Lock) -> Result<Self, NotTried> {
        remove_abandoned(&trees.dkms)?;
        let path = trees.dkms.join(format!("{PREFIX}{}", process::id()));
        durable::create_dirs(&path)?;
        let dir = File::open(&path).map_err(FileError::when("open", &path))?;
        dir.lock().map_err(FileError::when("lock", &path))?;
        Ok(Self { path, _in_use: dir })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory and everything in it.
    pub(crate) fn remove(self) -> Result<(), NotTried> {
        durable::remove_tree(&self.path)?;
        Ok(())
    }
}

/// Removes the directories of killed preflights from a dkms tree.
fn remove_abandoned(tree: &Path) -> Result<(), NotTried> {
    let entries = fs::read_dir(tree).into_iter().flatten().flatten();
    let dirs =
        entries.filter(|it| it.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    for dir in dirs.map(|entry| entry.path()) {
        let is_in_use = File::open(&dir).is_ok_and(|file| file.try_lock().is_err());
        if !is_in_use {
            durable::remove_tree(&dir)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dkms_engine::os::process::Environment;
    use testroot::TestRoot;

    use super::*;

    #[test]
    fn removes_only_what_no_preflight_uses() {
        let root = TestRoot::new();
        let trees = Trees::under(root.path());
        let lock = Lock::take(&trees, &Environment::fixed(), &mut |_| {}).expect("the lock");
        root.write(
            "var/lib/dkms/.trial-1/root/usr/src/a-1/dkms.conf",
            "left by a killed preflight",
        );
        root.dir("var/lib/dkms/.trial-2");
        let used = trees.dkms.join(".trial-2");
        let user = File::open(&used).expect("a directory");
        user.lock().expect("a lock");
        let own = ScratchDir::create(&trees, &lock).expect("a directory");
        assert!(own.path().is_dir() && used.is_dir());
        assert!(!trees.dkms.join(".trial-1").exists());
        let path = own.path().to_owned();
        own.remove().expect("removal");
        assert!(!path.exists());
    }
}
