//! Walks directory trees in a fixed order, and computes their signatures and digests.
//!
//! A signature covers the metadata of all entries. A digest covers their contents. FIFOs, sockets
//! and devices do not count as entries.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::durable::FileError;
use super::parallel::on_all_cores;
use super::stat::{Stat, now};

/// The version of the hashed format.
///
/// Change this value whenever signatures or digests are computed differently, so that stored ones
/// no longer match.
const FORMAT: &[u8] = b"alpm-dkms walk 3\0";

/// A directory to walk.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The path that stands for `dir` in signatures, digests and results.
    pub(crate) label: PathBuf,
    /// The directory, or a link to it. Links inside the directory are not followed.
    pub(crate) dir: PathBuf,
    /// The entries of `dir` to include.
    pub(crate) extent: Extent,
}

/// The entries of a directory to include in a walk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// All entries, including those of subdirectories.
    All,
    /// All entries, including those of subdirectories, except the top-level entry with this name.
    Without(&'static str),
    /// Only the files with these names. Files that do not exist are skipped.
    Only(&'static [&'static str]),
}

/// The contents of a tree. Maps the path of each entry to a digest of its type, content, execute
/// bits and link target.
pub(crate) type Contents = BTreeMap<PathBuf, Digest>;

/// The entries found in one or several directories and their subdirectories.
#[derive(Debug)]
pub(crate) struct Walk {
    folders: Vec<Folder>,
}

#[derive(Debug, Clone)]
struct Folder {
    label: PathBuf,
    dir: PathBuf,
    extent: Extent,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: OsString,
    /// The metadata; `None` for a directory. A directory's metadata is not hashed, because it
    /// changes when any entry is added or removed, even an excluded one.
    stat: Option<Stat>,
}

impl Walk {
    /// Lists the entries of `parts`, including those of subdirectories.
    pub(crate) fn over(parts: &[Part]) -> Result<Self, FileError> {
        let mut ahead: VecDeque<Part> = parts.iter().cloned().collect();
        let mut folders = Vec::new();
        while let Some(part) = ahead.pop_front() {
            let mut folder = Folder {
                label: part.label,
                dir: part.dir,
                extent: part.extent,
                entries: Vec::new(),
            };
            match folder.extent {
                Extent::Only(names) => folder.add_named(names)?,
                Extent::Without(name) => folder.add_all(Some(name))?,
                Extent::All => folder.add_all(None)?,
            }
            for below in folder.entries.iter().filter(|entry| entry.stat.is_none()) {
                let (label, dir) = (folder.label.join(&below.name), folder.path(below));
                ahead.push_back(Part { label, dir, extent: Extent::All });
            }
            folders.push(folder);
        }
        Ok(Self { folders })
    }

    /// Returns the signature of all entries, and true if the signature is stable.
    ///
    /// If the signature is stable, every later change to an entry is certain to change it.
    pub(crate) fn signature(&self) -> (Digest, bool) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        let mut stable = true;
        let now = now();
        let mut bytes = Vec::new();
        for folder in &self.folders {
            bytes.clear();
            text(&mut bytes, &folder.label);
            bytes.extend((folder.entries.len() as u64).to_le_bytes());
            for entry in &folder.entries {
                text(&mut bytes, Path::new(&entry.name));
                match &entry.stat {
                    None => bytes.push(b'd'),
                    Some(stat) => {
                        bytes.push(b'f');
                        stat.write(&mut bytes);
                        stable &= stat.is_stable(now);
                    }
                }
            }
            hasher.update(&bytes);
        }
        (Digest(hasher.finalize()), stable)
    }

    /// Returns the digest of the names, types, contents, execute bits and link targets of all
    /// entries.
    pub(crate) fn digest(&self) -> Result<Digest, FileError> {
        self.digest_with(blake3_of)
    }

    /// Returns the digest like [`Self::digest`], but hashes the contents of files with `hash`.
    pub(crate) fn digest_with(
        &self,
        hash: impl Fn(&Path, &Stat) -> Result<[u8; 32], FileError> + Sync,
    ) -> Result<Digest, FileError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        let mut bytes = Vec::new();
        self.read(hash, |path, content| {
            bytes.clear();
            text(&mut bytes, &path);
            bytes.extend(content);
            hasher.update(&bytes);
        })?;
        Ok(Digest(hasher.finalize()))
    }

    /// Returns the contents of all entries.
    pub(crate) fn contents(&self) -> Result<Contents, FileError> {
        let mut contents = Contents::new();
        self.read(blake3_of, |path, content| {
            contents.insert(path, Digest::of_bytes(content));
        })?;
        Ok(contents)
    }

    /// Returns the paths of all entries.
    pub(crate) fn paths(&self) -> BTreeSet<PathBuf> {
        self.entries().map(|(folder, entry)| folder.label.join(&entry.name)).collect()
    }

    /// Returns the paths of the entries that were added, changed or removed since `earlier`,
    /// which must be a walk over the same parts.
    pub(crate) fn changed_since(&self, earlier: &Self) -> BTreeSet<PathBuf> {
        let same = |(a, b): ((&Folder, &Entry), (&Folder, &Entry))| {
            a.0.label == b.0.label && a.1.name == b.1.name && a.1.is_same_file(b.1)
        };
        if self.len() == earlier.len() && self.entries().zip(earlier.entries()).all(same) {
            return BTreeSet::new();
        }
        let mut before: BTreeMap<PathBuf, &Entry> =
            earlier.entries().map(|(folder, it)| (folder.label.join(&it.name), it)).collect();
        let mut changed = BTreeSet::new();
        for (folder, now) in self.entries() {
            let path = folder.label.join(&now.name);
            if !before.remove(&path).is_some_and(|before| before.is_same_file(now)) {
                changed.insert(path);
            }
        }
        changed.extend(before.into_keys());
        changed
    }

    /// Returns this walk with only the entries at `paths`.
    pub(crate) fn only(&self, paths: &BTreeSet<PathBuf>) -> Self {
        let mut walk = Self { folders: self.folders.clone() };
        for folder in &mut walk.folders {
            let label = &folder.label;
            folder.entries.retain(|entry| paths.contains(&label.join(&entry.name)));
        }
        walk
    }

    /// Calls `take` with the path and the content of each entry. `hash` returns the digest of a
    /// file's content.
    fn read(
        &self,
        hash: impl Fn(&Path, &Stat) -> Result<[u8; 32], FileError> + Sync,
        mut take: impl FnMut(PathBuf, &[u8]),
    ) -> Result<(), FileError> {
        let file = |(folder, entry): (&Folder, &Entry)| {
            let stat = entry.stat.filter(|stat| stat.kind().is_file())?;
            Some((folder.path(entry), stat))
        };
        let files: Vec<(PathBuf, Stat)> = self.entries().filter_map(file).collect();
        let contents = on_all_cores(&files, |(path, stat)| hash(path, stat));
        let mut contents = contents.into_iter();
        let mut bytes = Vec::new();
        for (folder, entry) in self.entries() {
            bytes.clear();
            match &entry.stat {
                None => bytes.push(b'd'),
                Some(stat) if stat.kind().is_file() => {
                    bytes.push(if stat.is_executable() { b'x' } else { b'f' });
                    if let Some(content) = contents.next() {
                        bytes.extend(content?);
                    }
                }
                Some(stat) if stat.kind().is_symlink() => {
                    let path = folder.path(entry);
                    let target = fs::read_link(&path).map_err(FileError::when("read", &path))?;
                    bytes.push(b'l');
                    text(&mut bytes, &target);
                }
                Some(_) => bytes.push(b's'),
            }
            take(folder.label.join(&entry.name), &bytes);
        }
        Ok(())
    }

    /// Returns the paths of all directories.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().map(|folder| folder.dir.as_path())
    }

    /// Returns the paths whose metadata changes if an entry is added, removed or replaced.
    ///
    /// These are the directories, and the files named by [`Extent::Only`]. Writing to an existing
    /// file does not change the metadata of its directory.
    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        let of_folder = |folder: &Folder| match folder.extent {
            Extent::Only(names) => names.iter().map(|name| folder.dir.join(name)).collect(),
            Extent::All | Extent::Without(_) => vec![folder.dir.clone()],
        };
        self.folders.iter().flat_map(of_folder).collect()
    }

    fn len(&self) -> usize {
        self.folders.iter().map(|folder| folder.entries.len()).sum()
    }

    fn entries(&self) -> impl Iterator<Item = (&Folder, &Entry)> {
        self.folders.iter().flat_map(|folder| folder.entries.iter().map(move |it| (folder, it)))
    }
}

impl Folder {
    fn path(&self, entry: &Entry) -> PathBuf {
        self.dir.join(&entry.name)
    }

    /// Adds the files with these names, except those that do not exist.
    fn add_named(&mut self, names: &[&str]) -> Result<(), FileError> {
        for name in names {
            let path = self.dir.join(name);
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => {
                    let meta = other.map_err(FileError::when("read", &path))?;
                    self.entries.push(Entry { name: name.into(), stat: Some(Stat::of(&meta)) });
                }
            }
        }
        Ok(())
    }

    /// Adds the entries of the directory except `without`, sorted by name.
    fn add_all(&mut self, without: Option<&str>) -> Result<(), FileError> {
        let failed = || FileError::when("list", &self.dir);
        for entry in fs::read_dir(&self.dir).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name();
            if without.is_some_and(|without| name == *without) {
                continue;
            }
            let kind = entry.file_type().map_err(failed())?;
            // Copies of the tree lack special files, and must have the same digest.
            if !(kind.is_dir() || kind.is_file() || kind.is_symlink()) {
                continue;
            }
            let meta = || entry.metadata().map_err(FileError::when("read", &entry.path()));
            let stat = if kind.is_dir() { None } else { Some(Stat::of(&meta()?)) };
            self.entries.push(Entry { name, stat });
        }
        self.entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }
}

impl Entry {
    fn is_same_file(&self, other: &Self) -> bool {
        match (&self.stat, &other.stat) {
            (None, None) => true,
            (Some(stat), Some(other)) => stat.is_same_file(other),
            _ => false,
        }
    }
}

/// Returns the signature of the [watched](Walk::watched) paths of `parts`, and true if the
/// signature is stable.
///
/// The signature is stable if no path has changed since the time `since`, or shortly before it.
/// `since` is a value returned by [`now`].
pub(crate) fn signature_of_watched(
    parts: &[Part],
    watched: &[impl AsRef<Path>],
    since: i128,
) -> (Digest, bool) {
    let mut bytes = FORMAT.to_vec();
    for part in parts {
        text(&mut bytes, &part.label);
        text(&mut bytes, &part.dir);
    }
    let mut stable = true;
    for path in watched {
        match fs::symlink_metadata(path) {
            Ok(meta) => {
                let stat = Stat::of(&meta);
                stat.write(&mut bytes);
                stable &= stat.is_stable(since);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => bytes.push(b'-'),
            // Not reported here: walking the directory fails with the same error.
            Err(_) => stable = false,
        }
    }
    (Digest::of_bytes(&bytes), stable)
}

/// Returns the signature of a single file, and true if the signature is stable (see
/// [`Walk::signature`]).
pub(crate) fn signature_of_file(stat: Stat) -> (Digest, bool) {
    let mut bytes = FORMAT.to_vec();
    stat.write(&mut bytes);
    (Digest::of_bytes(&bytes), stat.is_stable(now()))
}

/// Returns the names of the entries in `dir`, sorted; empty if the directory does not exist.
pub(crate) fn names(dir: &Path) -> Result<Vec<OsString>, FileError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(FileError::when("list", dir))?,
    };
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(FileError::when("list", dir))?;
    names.sort_unstable();
    Ok(names)
}

/// Returns the BLAKE3 digest of a file's content.
fn blake3_of(path: &Path, _: &Stat) -> Result<[u8; 32], FileError> {
    Digest::of_file(path).map(|digest| *digest.0.as_bytes())
}

/// Appends the length of `path`, then `path` itself.
///
/// The lengths ensure that different sequences of paths result in different bytes.
fn text(bytes: &mut Vec<u8>, path: &Path) {
    let path = path.as_os_str().as_bytes();
    bytes.extend((path.len() as u64).to_le_bytes());
    bytes.extend(path);
}

/// Returns the digest of `contents`.
pub(crate) fn digest_of(contents: &Contents) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(FORMAT);
    let mut bytes = Vec::new();
    for (path, content) in contents {
        bytes.clear();
        text(&mut bytes, path);
        bytes.extend(content.0.as_bytes());
        hasher.update(&bytes);
    }
    Digest(hasher.finalize())
}

impl Digest {
    /// Returns the digest of the directory tree `dir` (see [`Walk::digest`]).
    ///
    /// # Errors
    /// [`FileError`] if an entry of the tree cannot be read.
    pub(crate) fn of_tree(dir: &Path) -> Result<Self, FileError> {
        Walk::over(&whole(dir))?.digest()
    }
}

/// Returns a list with one part, which covers the whole directory `dir`.
pub(crate) fn whole(dir: &Path) -> Vec<Part> {
    vec![Part { label: PathBuf::new(), dir: dir.to_owned(), extent: Extent::All }]
}
