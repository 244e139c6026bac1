//! The cache of finished builds, keyed by the digest of their inputs.
//!
//! An entry is a directory `T/.cache/objects/<key>`. Its `built/` is `T/M/V/K/A` as it was at the
//! end of the build, including the files that scripts added. Where the file system supports hard
//! links, the files are links to those in `K/A`, so that an entry uses space only after `K/A` is
//! removed. The ticket in the entry describes it; its modification time is the time of last use.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::dkms_tree::{FILE_NAME, Inputs, Record};
use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::digest::Digest;
use crate::os::durable::{self, FileError};
use crate::os::{copy_tree, toml_file};

/// The file that makes a directory an entry. It is written last and removed first.
const TICKET: &str = "entry.toml";

/// The directory of the built files.
const BUILT: &str = "built";

/// The version of the entry format.
const FORMAT: u32 = 1;

/// The key of a build: the digest of its module, architecture and inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey(Digest);

impl CacheKey {
    /// Returns the key of a build from `inputs`.
    #[must_use]
    pub(crate) fn of(id: &ModuleId, arch: &Arch, inputs: &Inputs) -> Self {
        let parts = [id.to_string(), arch.to_string(), inputs.fingerprint().to_string()];
        Self(Digest::of_bytes(parts.join("\0").as_bytes()))
    }
}

/// A build in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedBuild {
    /// The key.
    pub key: CacheKey,
    /// The module.
    pub module: ModuleId,
    /// The kernel.
    pub kernel: KernelRelease,
    /// The kernel's architecture.
    pub arch: Arch,
    /// The total length of its files in bytes, including files shared with `K/A`.
    pub size: u64,
    /// The time of last use.
    pub used: SystemTime,
}

/// The description of an entry.
#[derive(Debug, Serialize, Deserialize)]
struct Ticket {
    format: u32,
    module: ModuleId,
    kernel: KernelRelease,
    arch: Arch,
    size: u64,
    /// The digest of `built/`, which detects damaged entries.
    content: Digest,
}

/// The cache of one dkms tree. The lock of the tree must be held to change it.
#[derive(Debug)]
pub struct BuildCache {
    dir: PathBuf,
}

impl BuildCache {
    /// Returns the cache of these trees.
    #[must_use]
    pub fn of(trees: &Trees) -> Self {
        Self { dir: trees.cached_builds() }
    }

    /// Returns the keys of all entries.
    #[must_use]
    pub(crate) fn keys(&self) -> HashSet<CacheKey> {
        let there = |key: &CacheKey| self.ticket_path(key).is_file();
        self.names().into_iter().filter(there).collect()
    }

    /// Returns all readable entries, most recently used first.
    #[must_use]
    pub fn entries(&self) -> Vec<CachedBuild> {
        let mut entries: Vec<CachedBuild> =
            self.names().into_iter().filter_map(|key| self.entry(key)).collect();
        entries.sort_by_key(|entry| Reverse((entry.used, entry.key.0.to_string())));
        entries
    }

    /// Keeps the finished build in the directory `built`, unless it alone exceeds `limit` bytes.
    ///
    /// # Errors
    /// [`FileError`] if it cannot be stored. No partial entry remains.
    pub(crate) fn keep(&self, built: &Path, record: &Record, limit: u64) -> Result<(), FileError> {
        let size = size_of(built)?;
        if size > limit {
            return Ok(());
        }
        durable::create_dirs(&self.dir)?;
        let unfinished = tempfile::Builder::new()
            .prefix(durable::UNFINISHED)
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(&self.dir)
            .map_err(FileError::when("make a directory in", &self.dir))?;
        let copy = unfinished.path().join(BUILT);
        copy_tree::link_tree(built, &copy)?;
        let key = CacheKey::of(&record.module, &record.arch, &record.inputs);
        let (module, kernel, arch) =
            (record.module.clone(), record.kernel.clone(), record.arch.clone());
        // The placed objects are not part of the entry.
        Record { placed: Vec::new(), ..record.clone() }.write(&copy.join(FILE_NAME))?;
        let content = Digest::of_tree(&copy)?;
        let ticket = Ticket { format: FORMAT, module, kernel, arch, size, content };
        toml_file::write(&unfinished.path().join(TICKET), &ticket)?;
        self.remove(&key)?;
        let place = self.path(&key);
        fs::rename(unfinished.path(), &place).map_err(FileError::when("keep", &place))?;
        // The directory was renamed, so the temporary one needs no removal.
        let _ = unfinished.keep();
        Ok(())
    }

    /// Restores the build with this key to `to`, which must not exist. Returns false if there is no
    /// such entry. A damaged entry is removed, and `to` is not created.
    ///
    /// # Errors
    /// [`FileError`] if the entry exists but cannot be copied to `to`.
    pub(crate) fn take(&self, key: &CacheKey, to: &Path) -> Result<bool, FileError> {
        let ticket = self.ticket_path(key);
        let Some(noted) = read_ticket(&ticket) else { return Ok(false) };
        let taken = match copy_tree::link_tree(&self.path(key).join(BUILT), to) {
            Ok(()) => Digest::of_tree(to)? == noted.content,
            Err(error) if error.is_missing() => false,
            Err(error) => return Err(error),
        };
        if !taken {
            log::warn!(
                "{} for {}: cached build is damaged; removed from the cache",
                noted.module,
                noted.kernel
            );
            durable::remove_tree(to)?;
            self.remove(key)?;
            return Ok(false);
        }
        File::options()
            .write(true)
            .open(&ticket)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .map_err(FileError::when("set the time of", &ticket))?;
        Ok(true)
    }

    /// Evicts the least recently used entries until the total size is at most `limit` bytes.
    ///
    /// # Errors
    /// [`FileError`] at the first entry that cannot be removed.
    pub(crate) fn trim(&self, limit: u64) -> Result<(), FileError> {
        if !self.dir.is_dir() {
            return Ok(());
        }
        let entries = self.entries();
        let known: HashSet<CacheKey> = entries.iter().map(|entry| entry.key).collect();
        // Entries of another format, or partly removed.
        for key in self.names().into_iter().filter(|key| !known.contains(key)) {
            self.remove(&key)?;
        }
        for entry in beyond(limit, &entries) {
            self.remove(&entry.key)?;
        }
        self.remove_if_empty()
    }

    /// Removes all entries and returns their number.
    ///
    /// # Errors
    /// [`FileError`] at the first entry that cannot be removed.
    pub fn clear(&self) -> Result<usize, FileError> {
        let count = self.keys().len();
        self.trim(0)?;
        durable::remove_unfinished(&self.dir)?;
        self.remove_if_empty()?;
        Ok(count)
    }

    /// Removes the unfinished entries of killed runs.
    pub(crate) fn remove_strays(&self) -> Result<(), FileError> {
        durable::remove_unfinished(&self.dir)
    }

    fn remove(&self, key: &CacheKey) -> Result<(), FileError> {
        durable::remove_file_if_there(&self.ticket_path(key))?;
        durable::remove_tree(&self.path(key)).map(|_| ())
    }

    fn remove_if_empty(&self) -> Result<(), FileError> {
        match self.dir.parent() {
            Some(parent) => durable::remove_empty_dirs_up_to(&self.dir, parent),
            None => Ok(()),
        }
    }

    fn entry(&self, key: CacheKey) -> Option<CachedBuild> {
        let path = self.ticket_path(&key);
        let Ticket { module, kernel, arch, size, .. } = read_ticket(&path)?;
        let used = fs::metadata(&path).and_then(|meta| meta.modified()).unwrap_or(UNIX_EPOCH);
        Some(CachedBuild { key, module, kernel, arch, size, used })
    }

    /// Returns the keys of all directories that may be entries.
    fn names(&self) -> Vec<CacheKey> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(CacheKey)).collect()
    }

    fn path(&self, key: &CacheKey) -> PathBuf {
        self.dir.join(key.0.to_string())
    }

    fn ticket_path(&self, key: &CacheKey) -> PathBuf {
        self.path(key).join(TICKET)
    }
}

fn read_ticket(path: &Path) -> Option<Ticket> {
    toml_file::read::<Ticket>(path).filter(|ticket| ticket.format == FORMAT)
}

/// Returns those of `entries`, sorted from the most recently used, that exceed `limit` bytes.
fn beyond(limit: u64, entries: &[CachedBuild]) -> &[CachedBuild] {
    let mut total: u64 = 0;
    let fits = |entry: &CachedBuild| {
        total = total.saturating_add(entry.size);
        total <= limit
    };
    let first = entries.iter().map(fits).take_while(|fits| *fits).count();
    &entries[first..]
}

/// Returns the total length of all files below `dir` in bytes.
fn size_of(dir: &Path) -> Result<u64, FileError> {
    let mut size = 0;
    for entry in walkdir::WalkDir::new(dir) {
        let meta = entry.and_then(|entry| entry.metadata()).map_err(std::io::Error::from);
        let meta = meta.map_err(FileError::when("read", dir))?;
        size += if meta.is_file() { meta.len() } else { 0 };
    }
    Ok(size)
}

#[cfg(test)]
mod tests;
