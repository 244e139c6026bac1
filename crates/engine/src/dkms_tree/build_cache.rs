//! The cache of finished builds, keyed by the digest of their inputs.
//!
//! Each entry is a directory `T/.cache/objects/<key>`. Its subdirectory `built/` is a copy of
//! `T/M/V/K/A` at the end of the build, including the files that scripts added. If the file system
//! supports hard links, the files are shared, so that an entry takes up no additional space until
//! `T/M/V/K/A` is removed. The entry's ticket describes the entry, and the modification time of the
//! ticket is the time when the entry was last used.
//!
//! A trial run pins the entries that it stores or restores, so that the run after the transaction
//! finds them regardless of the size of the cache. The first run after which the entry's module is
//! built for the entry's kernel removes the pin. A pin expires after a day.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::dkms_tree::{FILE_NAME, Inputs, Record};
use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::digest::Digest;
use crate::os::durable::{self, Durability, FileError};
use crate::os::{copy_tree, toml_file};

/// The name of the ticket file, without which a directory is not an entry.
///
/// The ticket is therefore written last and removed first.
const TICKET: &str = "entry.toml";

/// The subdirectory of an entry that contains the built files.
const BUILT: &str = "built";

/// The version of the entry format. Entries in another format are never restored.
const FORMAT: u32 = 1;

/// The time after which a pin expires.
const PINNED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The key of a build in the cache: a digest of its module, architecture, inputs and environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey(Digest);

impl CacheKey {
    /// Returns the key of a module's build from `inputs`. `environment` is the digest of the
    /// build's environment.
    #[must_use]
    pub(crate) fn of(id: &ModuleId, arch: &Arch, inputs: &Inputs, environment: &Digest) -> Self {
        let inputs = inputs.fingerprint().to_string();
        let parts = [id.to_string(), arch.to_string(), inputs, environment.to_string()];
        Self(Digest::of_bytes(parts.join("\0").as_bytes()))
    }
}

/// The description of a build in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedBuild {
    /// The key under which the build is stored.
    pub key: CacheKey,
    /// The module that was built.
    pub module: ModuleId,
    /// The kernel for which the module was built.
    pub kernel: KernelRelease,
    /// The architecture for which the module was built.
    pub arch: Arch,
    /// The total size of the build's files in bytes, including files shared with the dkms tree.
    pub size: u64,
    /// The time when the build was last stored or restored.
    pub used: SystemTime,
    /// The time until which the build is pinned; `None` if it is not pinned.
    pub pinned_until: Option<SystemTime>,
}

impl CachedBuild {
    /// Returns true if the build is pinned at the time `now`, and therefore not evicted. Ignores a
    /// pin that was set while the clock was ahead.
    #[must_use]
    pub fn is_pinned(&self, now: SystemTime) -> bool {
        self.pinned_until.is_some_and(|until| until > now && until <= now + PINNED_FOR)
    }
}

/// The content of a ticket file, which describes an entry.
#[derive(Debug, Serialize, Deserialize)]
struct Ticket {
    format: u32,
    module: ModuleId,
    kernel: KernelRelease,
    arch: Arch,
    size: u64,
    /// The digest of `built/`. If it does not match, the entry is damaged.
    content: Digest,
    /// The time until which the entry is pinned, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinned_until: Option<u64>,
}

/// The build cache of a dkms tree. To change the cache, the caller must hold the tree's lock.
#[derive(Debug)]
pub struct BuildCache {
    dir: PathBuf,
}

impl BuildCache {
    /// Returns the build cache in the dkms tree of `trees`. Its directory need not exist.
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

    /// Returns the keys of the pinned entries.
    #[must_use]
    pub(crate) fn pinned_keys(&self) -> HashSet<CacheKey> {
        let now = SystemTime::now();
        self.entries().into_iter().filter(|it| it.is_pinned(now)).map(|it| it.key).collect()
    }

    /// Returns all readable entries, most recently used first.
    #[must_use]
    pub fn entries(&self) -> Vec<CachedBuild> {
        let mut entries: Vec<CachedBuild> =
            self.names().into_iter().filter_map(|key| self.entry(key)).collect();
        entries.sort_by_key(|entry| Reverse((entry.used, entry.key.0.to_string())));
        entries
    }

    /// Adds the finished build in the directory `built` to the cache, replacing an entry with the
    /// same key.
    ///
    /// Does nothing if the build is larger than `limit` bytes.
    ///
    /// # Errors
    /// [`FileError`] if the build cannot be stored. In that case no partial entry remains.
    pub(crate) fn keep(
        &self,
        built: &Path,
        record: &Record,
        environment: &Digest,
        limit: u64,
    ) -> Result<(), FileError> {
        let size = size_of(built)?;
        if size > limit {
            return Ok(());
        }
        durable::create_dirs(&self.dir)?;
        let unfinished = tempfile::Builder::new()
            .prefix(durable::UNFINISHED)
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(&self.dir)
            .map_err(FileError::when("create a directory in", &self.dir))?;
        let copy = unfinished.path().join(BUILT);
        copy_tree::link_tree(built, &copy)?;
        let key = CacheKey::of(&record.module, &record.arch, &record.inputs, environment);
        let (module, kernel, arch) =
            (record.module.clone(), record.kernel.clone(), record.arch.clone());
        // An entry does not record which objects an installation refused.
        Record { refused: Vec::new(), ..record.clone() }
            .write_with(&copy.join(FILE_NAME), Durability::None)?;
        let content = Digest::of_tree(&copy)?;
        let ticket =
            Ticket { format: FORMAT, module, kernel, arch, size, content, pinned_until: None };
        // No file is synced, because `content` shows whether the entry is complete.
        toml_file::write_with(&unfinished.path().join(TICKET), &ticket, Durability::None)?;
        self.remove(&key)?;
        let place = self.path(&key);
        fs::rename(unfinished.path(), &place).map_err(FileError::when("store", &place))?;
        // The temporary directory has been renamed and must not be removed.
        let _ = unfinished.keep();
        Ok(())
    }

    /// Restores the build with the key `key` to the directory `to`, which must not exist.
    ///
    /// Returns true if the build has been restored, and false if the cache does not contain it. If
    /// the entry is damaged, removes the entry and `to`, and returns false.
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
        // The build is usable even if the time cannot be set because the file system is read-only.
        if let Err(error) = set_used(&ticket, SystemTime::now()) {
            log::info!("{error}");
        }
        Ok(true)
    }

    /// Pins an entry for a day. Does nothing if there is no valid entry with this key.
    ///
    /// # Errors
    /// [`FileError`] if the ticket cannot be written.
    pub(crate) fn pin(&self, key: &CacheKey) -> Result<(), FileError> {
        let path = self.ticket_path(key);
        let Some(ticket) = read_ticket(&path) else { return Ok(()) };
        let until = SystemTime::now() + PINNED_FOR;
        let until = until.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
        let pinned = Ticket { pinned_until: until, ..ticket };
        toml_file::write_with(&path, &pinned, Durability::None)
    }

    /// Removes the pins of the entries for which `is_done` returns true. This does not count as a
    /// use of the entries.
    ///
    /// # Errors
    /// [`FileError`] at the first ticket that cannot be written.
    pub(crate) fn remove_pins(
        &self,
        is_done: impl Fn(&CachedBuild) -> bool,
    ) -> Result<(), FileError> {
        let pinned = self.entries().into_iter().filter(|entry| entry.pinned_until.is_some());
        for entry in pinned.filter(|entry| is_done(entry)) {
            let path = self.ticket_path(&entry.key);
            let Some(ticket) = read_ticket(&path) else { continue };
            let ticket = Ticket { pinned_until: None, ..ticket };
            toml_file::write_with(&path, &ticket, Durability::None)?;
            set_used(&path, entry.used)?;
        }
        Ok(())
    }

    /// Evicts the least recently used entries until the total size is at most `limit` bytes. Pinned
    /// entries are never evicted, and their size does not count. Also removes invalid entries.
    /// Keeps the cache directory, because a trial run may have it open.
    ///
    /// # Errors
    /// [`FileError`] at the first entry that cannot be removed.
    pub(crate) fn trim(&self, limit: u64) -> Result<(), FileError> {
        if !self.dir.is_dir() {
            return Ok(());
        }
        let entries = self.entries();
        let known: HashSet<CacheKey> = entries.iter().map(|entry| entry.key).collect();
        // These entries have another format or were only partly removed.
        for key in self.names().into_iter().filter(|key| !known.contains(key)) {
            self.remove(&key)?;
        }
        for entry in beyond(limit, &entries, SystemTime::now()) {
            self.remove(&entry.key)?;
        }
        Ok(())
    }

    /// Removes all entries, even pinned ones, and returns their number. Keeps the cache directory.
    ///
    /// # Errors
    /// [`FileError`] at the first entry that cannot be removed.
    pub fn clear(&self) -> Result<usize, FileError> {
        let count = self.keys().len();
        for key in self.names() {
            self.remove(&key)?;
        }
        durable::remove_unfinished(&self.dir)?;
        Ok(count)
    }

    /// Removes the unfinished entries that killed runs left behind.
    pub(crate) fn remove_strays(&self) -> Result<(), FileError> {
        durable::remove_unfinished(&self.dir)
    }

    fn remove(&self, key: &CacheKey) -> Result<(), FileError> {
        durable::remove_file_if_there(&self.ticket_path(key))?;
        durable::remove_tree(&self.path(key)).map(|_| ())
    }

    fn entry(&self, key: CacheKey) -> Option<CachedBuild> {
        let path = self.ticket_path(&key);
        let Ticket { module, kernel, arch, size, pinned_until, .. } = read_ticket(&path)?;
        let used = fs::metadata(&path).and_then(|meta| meta.modified()).unwrap_or(UNIX_EPOCH);
        let time = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let pinned_until = pinned_until.and_then(time);
        Some(CachedBuild { key, module, kernel, arch, size, used, pinned_until })
    }

    /// Returns the keys of all directories that have a key as their name, even if the entry is
    /// invalid.
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

/// Sets the time when the entry with this ticket was last used.
fn set_used(ticket: &Path, used: SystemTime) -> Result<(), FileError> {
    let file = File::options().write(true).open(ticket);
    file.and_then(|file| file.set_modified(used))
        .map_err(FileError::when("set the time of", ticket))
}

/// Returns the entries to evict so that the others fit in `limit` bytes. Ignores entries that are
/// pinned at the time `now`.
///
/// `entries` must be sorted from most to least recently used.
fn beyond(limit: u64, entries: &[CachedBuild], now: SystemTime) -> Vec<&CachedBuild> {
    let mut total: u64 = 0;
    let is_beyond = |entry: &&CachedBuild| {
        // A single entry that is too large must not evict all others.
        if entry.size > limit {
            return true;
        }
        total = total.saturating_add(entry.size);
        total > limit
    };
    entries.iter().filter(|entry| !entry.is_pinned(now)).filter(is_beyond).collect()
}

/// Returns the total size of all files below `dir` in bytes.
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
