//! The directory for the scratch space of one preflight.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process;

use dkms_engine::machine::{Lock, Trees};
use dkms_engine::os::durable::{self, FileError};
use dkms_engine::os::mount_table::{self, Mount};

use crate::not_tried::NotTried;

/// The prefix of the directories' names.
pub(crate) const PREFIX: &str = ".alpm-dkms-trial-";

/// The directories that may contain the scratch space in place of the dkms tree, if they are on
/// another file system with more room.
const OTHERS: [&str; 2] = ["root", "home"];

/// The file system types on which the directories in [`OTHERS`] are used. Calls on other types,
/// such as nfs, may never return.
const LOCAL: [&str; 6] = ["bcachefs", "btrfs", "ext4", "f2fs", "xfs", "zfs"];

/// The directory for the scratch space of one preflight. The directory is locked while the
/// preflight runs, so that other preflights do not remove it.
#[derive(Debug)]
pub(crate) struct ScratchDir {
    path: PathBuf,
    _in_use: File,
}

impl ScratchDir {
    /// Creates the directory on the file system with the most room, and removes the directories of
    /// killed preflights. The caller must hold the lock of the trees: until a new directory is
    /// locked, another preflight would remove it.
    pub(crate) fn create(trees: &Trees, _lock: &Lock) -> Result<Self, NotTried> {
        let mounts = mount_table::read(&trees.root.join("proc/self/mounts")).unwrap_or_default();
        let others = OTHERS.map(|dir| trees.root.join(dir)).into_iter();
        let others = others.filter(|dir| is_local(&mounts, dir) && dir.is_dir());
        let parents: Vec<PathBuf> = [trees.dkms.clone()].into_iter().chain(others).collect();
        parents.iter().try_for_each(|parent| remove_abandoned(parent))?;
        let parent = roomiest(&parents).unwrap_or(&trees.dkms);
        let path = parent.join(format!("{PREFIX}{}", process::id()));
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

/// Returns true if `dir` is on a file system with a type in [`LOCAL`], according to `mounts`.
fn is_local(mounts: &[Mount], dir: &Path) -> bool {
    let above = mounts.iter().filter(|mount| dir.starts_with(&mount.dir));
    // A later mount hides an earlier one on the same directory.
    let mount = above.max_by_key(|mount| mount.dir.components().count());
    mount.is_some_and(|mount| LOCAL.contains(&mount.kind.as_str()))
}

/// Returns the directory with the most free space. If several are on the same file system, returns
/// the first of them.
fn roomiest(dirs: &[PathBuf]) -> Option<&PathBuf> {
    dirs.iter().rev().max_by_key(|dir| durable::free_space(dir))
}

/// Removes the directories of killed preflights from a directory.
fn remove_abandoned(parent: &Path) -> Result<(), NotTried> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
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
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;

    #[rstest]
    #[case::same_file_system("/", true)]
    #[case::other_file_system("/home", true)]
    #[case::below("/home/me", true)]
    #[case::remote("/srv/data", false)]
    #[case::covered("/mnt", false)]
    #[case::similar_name("/homes", true)]
    fn local_file_systems_are_known(#[case] dir: &str, #[case] expected: bool) {
        let mounts = [
            ("/", "ext4"),
            ("/mnt", "ext4"),
            ("/home", "btrfs"),
            ("/srv", "nfs4"),
            ("/mnt", "autofs"),
        ];
        let mounts = mounts.map(|(dir, kind)| Mount {
            dir: dir.into(),
            kind: kind.into(),
            options: String::new(),
        });
        assert_eq!(is_local(&mounts, Path::new(dir)), expected);
    }

    #[test]
    fn first_directory_of_a_file_system_is_used() {
        let root = TestRoot::new();
        let dirs: Vec<PathBuf> = ["a", "b", "c"].map(|dir| root.path().join(dir)).into();
        dirs.iter().for_each(|dir| fs::create_dir_all(dir).expect("a directory"));
        assert_eq!(roomiest(&dirs), Some(&dirs[0]));
    }

    #[test]
    fn removes_only_what_no_preflight_uses() {
        let root = TestRoot::new();
        let trees = Trees::under(root.path());
        let lock = Lock::take(&trees, &Environment::fixed(), &mut |_| {}).expect("the lock");
        root.write(
            "var/lib/dkms/.alpm-dkms-trial-1/root/usr/src/a-1/dkms.conf",
            "left by a killed preflight",
        );
        root.dir("var/lib/dkms/.alpm-dkms-trial-2");
        let used = trees.dkms.join(".alpm-dkms-trial-2");
        let user = File::open(&used).expect("a directory");
        user.lock().expect("a lock");
        let own = ScratchDir::create(&trees, &lock).expect("a directory");
        assert!(own.path().is_dir() && used.is_dir());
        assert!(!trees.dkms.join(".alpm-dkms-trial-1").exists());
        let path = own.path().to_owned();
        own.remove().expect("removal");
        assert!(!path.exists());
    }
}
