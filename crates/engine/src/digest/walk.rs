//! The files of a tree in a fixed order, with what stat says of each.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Digest;
use crate::durable::FileError;

/// Changed whenever signatures or digests are made in another way, so that no old one fits.
const FORMAT: &[u8] = b"alpm-dkms walk 1\0";

/// A file whose content is not yet known to be old may change once more within the same tick of
/// its filesystem's clock, and look the same. The tick of Linux is at most 10 ms.
const TICK: i128 = 100_000_000;

/// The same for filesystems that keep whole seconds (ext4 with small inodes).
const WHOLE_SECONDS_TICK: i128 = 2_000_000_000;

/// With fewer things to do, a thread costs more than it gains.
const WORTH_A_THREAD: usize = 30;

/// The entries below one or several directories.
#[derive(Debug)]
pub(super) struct Walk {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The path that counts, relative.
    name: PathBuf,
    /// The path to read.
    path: PathBuf,
    meta: Metadata,
}

impl Walk {
    /// Walks all below the given directories, each of which gets a label to stand for it in the
    /// names. They may be links; links inside are not followed.
    ///
    /// Level by level, each on all cores: most of the time goes into asking for the size and times
    /// of some 20,000 headers.
    pub(super) fn over(dirs: &[(PathBuf, PathBuf)]) -> Result<Self, FileError> {
        let mut entries = Vec::new();
        let mut level = dirs.to_vec();
        while !level.is_empty() {
            let listings = on_all_cores(&level, |(label, dir)| list(label, dir));
            level.clear();
            for listing in listings {
                for entry in listing? {
                    if entry.meta.is_dir() {
                        level.push((entry.name.clone(), entry.path.clone()));
                    }
                    entries.push(entry);
                }
            }
        }
        Ok(Self { entries })
    }

    /// The signature of all entries, and whether they are settled: a change after this moment is
    /// sure to give another one.
    pub(super) fn signature(&self) -> (Digest, bool) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        let mut settled = true;
        let now = now();
        for entry in &self.entries {
            text(&mut hasher, &entry.name);
            if entry.meta.is_dir() {
                // Its entries say all that counts; its own time changes with any of them.
                hasher.update(b"d");
            } else {
                stat(&mut hasher, &entry.meta);
                settled &= is_settled(&entry.meta, now);
            }
        }
        (Digest(hasher.finalize()), settled)
    }

    /// The digest of all entries: names, kinds, contents, executable bits, targets of links.
    pub(super) fn digest(&self) -> Result<Digest, FileError> {
        let contents = on_all_cores(&self.entries, |entry| {
            entry.meta.is_file().then(|| Digest::of_file(&entry.path))
        });
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        for (entry, content) in self.entries.iter().zip(contents) {
            text(&mut hasher, &entry.name);
            if let Some(content) = content {
                let executable = entry.meta.mode() & 0o111 != 0;
                hasher.update(if executable { b"x" } else { b"f" }).update(content?.0.as_bytes());
            } else if entry.meta.is_symlink() {
                let target =
                    fs::read_link(&entry.path).map_err(FileError::when("read", &entry.path))?;
                hasher.update(b"l");
                text(&mut hasher, &target);
            } else {
                hasher.update(if entry.meta.is_dir() { b"d" } else { b"s" });
            }
        }
        Ok(Digest(hasher.finalize()))
    }
}

/// The entries of one directory, in the order of their names.
fn list(label: &Path, dir: &Path) -> Result<Vec<Entry>, FileError> {
    let failed = || FileError::when("list", dir);
    let mut listing = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let (name, path) = (label.join(entry.file_name()), entry.path());
        let meta = entry.metadata().map_err(FileError::when("read", &path))?;
        listing.push(Entry { name, path, meta });
    }
    listing.sort_unstable_by(|a, b| a.name.as_os_str().cmp(b.name.as_os_str()));
    Ok(listing)
}

/// Asks `ask` of every item, and gives the answers in the order of the items.
fn on_all_cores<T: Sync, A: Send>(items: &[T], ask: impl Fn(&T) -> A + Sync) -> Vec<A> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(cores).max(WORTH_A_THREAD);
    let mut answers: Vec<Option<A>> = items.iter().map(|_| None).collect();
    thread::scope(|scope| {
        let ask = &ask;
        let mut shares = items.chunks(share).zip(answers.chunks_mut(share));
        let ours = shares.next();
        let work = move |(items, answers): (&[T], &mut [Option<A>])| {
            for (item, answer) in items.iter().zip(answers) {
                *answer = Some(ask(item));
            }
        };
        for theirs in shares {
            scope.spawn(move || work(theirs));
        }
        if let Some(ours) = ours {
            work(ours);
        }
    });
    answers.into_iter().flatten().collect()
}

/// As [`Walk::signature`], of one file.
pub(super) fn signature_of_file(meta: &Metadata) -> (Digest, bool) {
    let mut hasher = blake3::Hasher::new();
    hasher.update(FORMAT);
    stat(&mut hasher, meta);
    (Digest(hasher.finalize()), is_settled(meta, now()))
}

/// The names in a directory, sorted; none if it is not there.
pub(super) fn names(dir: &Path) -> Result<Vec<OsString>, FileError> {
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
fn text(hasher: &mut blake3::Hasher, path: &Path) {
    let bytes = path.as_os_str().as_bytes();
    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

fn stat(hasher: &mut blake3::Hasher, meta: &Metadata) {
    let numbers = [
        meta.size(),
        meta.mtime().cast_unsigned(),
        meta.mtime_nsec().cast_unsigned(),
        meta.ctime().cast_unsigned(),
        meta.ctime_nsec().cast_unsigned(),
        meta.ino(),
        meta.dev(),
        u64::from(meta.mode()),
    ];
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
}

/// Whether the last change was so long before `now` that another one would get another ctime.
fn is_settled(meta: &Metadata, now: i128) -> bool {
    let changed = i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec());
    let tick = if meta.ctime_nsec() == 0 { WHOLE_SECONDS_TICK } else { TICK };
    changed + tick < now
}

/// Nanoseconds since 1970.
fn now() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}
