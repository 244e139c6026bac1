//! Walks the files of a tree in a fixed order.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::durable::FileError;
use super::parallel::on_all_cores;
use super::stat::{Stat, now};

/// Changed whenever signatures or digests are made in another way, so that no old one fits.
const FORMAT: &[u8] = b"alpm-dkms walk 2\0";

/// A directory to be walked.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// What stands for it in the names.
    pub(crate) label: PathBuf,
    /// Where it is. It may be a link; links inside are not followed.
    pub(crate) dir: PathBuf,
    /// How much of it counts.
    pub(crate) extent: Extent,
}

/// How much of a directory counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// All that is below it.
    All,
    /// All but the entry of this name.
    Without(&'static str),
    /// Only the files of these names, as far as they are there.
    Only(&'static [&'static str]),
}

/// The entries below one or several directories.
#[derive(Debug)]
pub(crate) struct Walk {
    folders: Vec<Folder>,
}

#[derive(Debug)]
struct Folder {
    label: PathBuf,
    dir: PathBuf,
    /// How much of it counts.
    extent: Extent,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: OsString,
    /// Nothing for a directory: its entries say all that counts, and its own time changes with
    /// any of them.
    stat: Option<Stat>,
}

impl Walk {
    /// Walks the given directories.
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
                Extent::Only(names) => folder.look_for(names)?,
                Extent::Without(name) => folder.list(Some(name))?,
                Extent::All => folder.list(None)?,
            }
            for below in folder.entries.iter().filter(|entry| entry.stat.is_none()) {
                let (label, dir) = (folder.label.join(&below.name), folder.path(below));
                ahead.push_back(Part { label, dir, extent: Extent::All });
            }
            folders.push(folder);
        }
        Ok(Self { folders })
    }

    /// The signature of all entries, and whether they are stable: a change after this moment is
    /// sure to give another one.
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

    /// The digest of all entries: names, kinds, contents, executable bits, targets of links.
    pub(crate) fn digest(&self) -> Result<Digest, FileError> {
        let files: Vec<PathBuf> =
            self.entries().filter(|(_, entry)| entry.is_file()).map(|(f, e)| f.path(e)).collect();
        let contents = on_all_cores(&files, |path| Digest::of_file(path));
        let mut contents = contents.into_iter();
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        let mut bytes = Vec::new();
        for (folder, entry) in self.entries() {
            bytes.clear();
            text(&mut bytes, &folder.label.join(&entry.name));
            match &entry.stat {
                None => bytes.push(b'd'),
                Some(stat) if stat.kind().is_file() => {
                    bytes.push(if stat.is_executable() { b'x' } else { b'f' });
                    if let Some(content) = contents.next() {
                        bytes.extend(content?.0.as_bytes());
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
            hasher.update(&bytes);
        }
        Ok(Digest(hasher.finalize()))
    }

    /// Returns the paths whose own stat shows whether anything in the walk came, went or was
    /// replaced: the directories, and the files that count alone in theirs. A file that is written
    /// to in place does not show.
    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        let of_folder = |folder: &Folder| match folder.extent {
            Extent::Only(names) => names.iter().map(|name| folder.dir.join(name)).collect(),
            Extent::All | Extent::Without(_) => vec![folder.dir.clone()],
        };
        self.folders.iter().flat_map(of_folder).collect()
    }

    fn entries(&self) -> impl Iterator<Item = (&Folder, &Entry)> {
        self.folders.iter().flat_map(|folder| folder.entries.iter().map(move |it| (folder, it)))
    }
}

impl Folder {
    fn path(&self, entry: &Entry) -> PathBuf {
        self.dir.join(&entry.name)
    }

    /// Adds those files of these names that are there.
    fn look_for(&mut self, names: &[&str]) -> Result<(), FileError> {
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

    /// Adds what is in the directory itself, in the order of the names, but not the entry `without`.
    fn list(&mut self, without: Option<&str>) -> Result<(), FileError> {
        let failed = || FileError::when("list", &self.dir);
        for entry in fs::read_dir(&self.dir).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name();
            if without.is_some_and(|without| name == *without) {
                continue;
            }
            let is_dir = entry.file_type().map_err(failed())?.is_dir();
            let meta = || entry.metadata().map_err(FileError::when("read", &entry.path()));
            let stat = if is_dir { None } else { Some(Stat::of(&meta()?)) };
            self.entries.push(Entry { name, stat });
        }
        self.entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }
}

impl Entry {
    fn is_file(&self) -> bool {
        self.stat.is_some_and(|stat| stat.kind().is_file())
    }
}

/// The signature of what is [watched](Walk::watched) of some directories, and whether nothing of it
/// changed after the moment `since`, see [`now`].
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
            // The walk will say what is wrong.
            Err(_) => stable = false,
        }
    }
    (Digest::of_bytes(&bytes), stable)
}

/// As [`Walk::signature`], of one file.
pub(crate) fn signature_of_file(stat: Stat) -> (Digest, bool) {
    let mut bytes = FORMAT.to_vec();
    stat.write(&mut bytes);
    (Digest::of_bytes(&bytes), stat.is_stable(now()))
}

/// The names in a directory, sorted; none if it is not there.
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

/// Adds a path with its length, so that two in a row cannot be read as two others.
fn text(bytes: &mut Vec<u8>, path: &Path) {
    let path = path.as_os_str().as_bytes();
    bytes.extend((path.len() as u64).to_le_bytes());
    bytes.extend(path);
}

impl Digest {
    /// The digest of all below a directory, read now: names, kinds, contents, executable bits,
    /// targets of links.
    ///
    /// # Errors
    /// [`FileError`] naming the entry that cannot be read.
    pub(crate) fn of_tree(dir: &Path) -> Result<Self, FileError> {
        Walk::over(&whole(dir))?.digest()
    }
}

/// A directory with all that is in it.
pub(crate) fn whole(dir: &Path) -> Vec<Part> {
    vec![Part { label: PathBuf::new(), dir: dir.to_owned(), extent: Extent::All }]
}
