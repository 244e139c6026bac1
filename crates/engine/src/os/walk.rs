//! Walks the files of a tree in a fixed order.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::digest::Digest;
use super::durable::FileError;
use super::parallel::on_all_cores;
use super::stat::{Stat, now};

/// Changed whenever signatures or digests are made in another way, so that no old one fits.
const FORMAT: &[u8] = b"alpm-dkms walk 2\0";

/// Room for the answer to one question after the entries of a directory, in bytes.
const LISTING: usize = 32 << 10;

/// With fewer files to read, a thread costs more than it gains.
const FILES_PER_THREAD: usize = 30;

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
    /// The names of all entries, one after the other: of the time that some 10,000 entries take, a
    /// third would go into making and freeing a string for each.
    names: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Where its name is in [`Folder::names`].
    name: Range<usize>,
    /// Nothing for a directory: its entries say all that counts, and its own time changes with
    /// any of them.
    stat: Option<Stat>,
}

impl Walk {
    /// Walks the given directories.
    pub(crate) fn over(parts: &[Part]) -> Result<Self, FileError> {
        let mut ahead: VecDeque<Part> = parts.iter().cloned().collect();
        let mut folders = Vec::new();
        let mut buffer = Vec::with_capacity(LISTING);
        while let Some(part) = ahead.pop_front() {
            let mut folder = Folder {
                label: part.label,
                dir: part.dir,
                extent: part.extent,
                names: Vec::new(),
                entries: Vec::new(),
            };
            match folder.extent {
                Extent::Only(names) => folder.look_for(names)?,
                Extent::Without(name) => folder.list(Some(name), &mut buffer)?,
                Extent::All => folder.list(None, &mut buffer)?,
            }
            for below in folder.entries.iter().filter(|entry| entry.stat.is_none()) {
                let name = folder.name(below);
                let (label, dir) = (folder.label.join(name), folder.dir.join(name));
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
                text(&mut bytes, Path::new(folder.name(entry)));
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
        let contents = on_all_cores(&files, FILES_PER_THREAD, |path| Digest::of_file(path));
        let mut contents = contents.into_iter();
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        let mut bytes = Vec::new();
        for (folder, entry) in self.entries() {
            bytes.clear();
            text(&mut bytes, &folder.label.join(folder.name(entry)));
            match &entry.stat {
                None => bytes.push(b'd'),
                Some(stat) if stat.is_file() => {
                    bytes.push(if stat.mode & 0o111 == 0 { b'f' } else { b'x' });
                    if let Some(content) = contents.next() {
                        bytes.extend(content?.0.as_bytes());
                    }
                }
                Some(stat) if stat.is_link() => {
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
    fn name(&self, entry: &Entry) -> &OsStr {
        OsStr::from_bytes(self.names.get(entry.name.clone()).unwrap_or_default())
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        self.dir.join(self.name(entry))
    }

    fn add(&mut self, name: &[u8], stat: Option<Stat>) {
        let start = self.names.len();
        self.names.extend(name);
        self.entries.push(Entry { name: start..self.names.len(), stat });
    }

    /// Adds those files of these names that are there.
    fn look_for(&mut self, names: &[&str]) -> Result<(), FileError> {
        for name in names {
            let path = self.dir.join(name);
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => {
                    let meta = other.map_err(FileError::when("read", &path))?;
                    self.add(name.as_bytes(), Some(Stat::of(&meta)));
                }
            }
        }
        Ok(())
    }

    /// Adds what is in the directory itself, in the order of the names, but not what is named
    /// `without`. `buffer` is room to work in.
    fn list(&mut self, without: Option<&str>, buffer: &mut Vec<u8>) -> Result<(), FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = rustix::fs::open(&self.dir, flags, Mode::empty());
        let open = open.map_err(failed("list", &self.dir))?;
        let mut listing = RawDir::new(&open, buffer.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = entry.map_err(failed("list", &self.dir))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || without.is_some_and(|it| it.as_bytes() == name) {
                continue;
            }
            // Not every filesystem tells the kinds of entries in the list.
            let stat = if entry.file_type() == FileType::Directory {
                None
            } else {
                let stat = Stat::at(&open, entry.file_name());
                Some(stat.map_err(failed("read", &self.dir.join(OsStr::from_bytes(name))))?)
            };
            self.add(name, stat.filter(|stat| !stat.is_directory()));
        }
        let names = &self.names;
        let name = |entry: &Entry| names.get(entry.name.clone());
        self.entries.sort_unstable_by(|a, b| name(a).cmp(&name(b)));
        Ok(())
    }
}

impl Entry {
    fn is_file(&self) -> bool {
        self.stat.as_ref().is_some_and(Stat::is_file)
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
        match Stat::at(rustix::fs::CWD, path.as_ref()) {
            Ok(stat) => {
                stat.write(&mut bytes);
                stable &= stat.is_stable(since);
            }
            Err(Errno::NOENT) => bytes.push(b'-'),
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

fn failed(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> FileError {
    move |error| FileError::when(what, path)(error.into())
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
