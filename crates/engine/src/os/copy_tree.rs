//! Copies directory trees, or creates trees of hard links. Symbolic links inside a tree are not
//! followed.
//!
//! Another user may change a tree while it is copied. Every entry is therefore opened relative to
//! the descriptor of its directory, and copied from the opened file.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, fchown, fchownat, getegid, geteuid, linkat, symlinkat, unlinkat,
};

use crate::os::durable::{self, FileError};

/// The mode bits that [`take_tree`] and [`keep_tree`] remove: setuid, setgid, and the write
/// permission of group and others.
const NOT_TAKEN: u32 = 0o6022;

/// The result of copying a tree.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    /// The special files that were skipped, each with its kind.
    pub(crate) left_out: Vec<(PathBuf, &'static str)>,
    /// The first file or directory of the source tree that users other than root can change. `None`
    /// if there is none, or if this process is not root.
    pub(crate) open_to_others: Option<PathBuf>,
}

impl Copied {
    /// Returns a message about the special files that were skipped; `None` if there are none.
    pub(crate) fn note(&self) -> Option<String> {
        let ((path, kind), others) = self.left_out.split_first()?;
        let others = match others.len() {
            0 => String::new(),
            1 => " (and 1 other special file)".into(),
            count => format!(" (and {count} other special files)"),
        };
        Some(format!("{}: skipped: {kind}{others}", path.display()))
    }
}

/// Copies the directory tree `from` to `to`, which must not exist.
///
/// Like `cp -a`, keeps modes, times, symbolic links and, if permitted, owners. `from` itself may be
/// a link to a directory, as `T/M/V/source` is. Links inside it are copied as links. File contents
/// are shared if the filesystem supports reflinks. FIFOs, sockets and devices are skipped.
///
/// # Errors
/// [`FileError`] if an entry cannot be copied, or if it is replaced during the copy. The partial
/// copy is removed.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<Copied, FileError> {
    place_tree(from, to, Manner { links: false, taken: false })
}

/// Creates the directory tree `to` with hard links to the files of `from`.
///
/// Removing or replacing a file in one tree does not affect the other. Files that cannot be linked
/// are copied, for example if `to` is on another filesystem. Everything else is as in
/// [`copy_tree`].
///
/// # Errors
/// The same as for [`copy_tree`].
pub(crate) fn link_tree(from: &Path, to: &Path) -> Result<(), FileError> {
    place_tree(from, to, Manner { links: true, taken: false }).map(drop)
}

/// Copies a module's source so that no other user can change the copy.
///
/// The copy belongs to root, or to the user of this process. It lacks setuid, setgid, and the write
/// permission of group and others. Everything else is as in [`copy_tree`].
///
/// # Errors
/// The same as for [`copy_tree`].
pub(crate) fn take_tree(from: &Path, to: &Path) -> Result<Copied, FileError> {
    place_tree(from, to, Manner { links: false, taken: true })
}

/// Creates a tree like [`take_tree`], but hard-links the files that no other user can change
/// instead of copying them.
///
/// # Errors
/// The same as for [`copy_tree`].
pub(crate) fn keep_tree(from: &Path, to: &Path) -> Result<Copied, FileError> {
    place_tree(from, to, Manner { links: true, taken: true })
}

#[derive(Debug, Clone, Copy)]
struct Manner {
    /// Whether to create hard links where possible.
    links: bool,
    /// Whether the copy belongs to this user and lacks the mode bits [`NOT_TAKEN`].
    taken: bool,
}

fn place_tree(from: &Path, to: &Path, manner: Manner) -> Result<Copied, FileError> {
    let source = openat(AT_FDCWD, from, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .map_err(FileError::when("read", from))?;
    refuse_copy_into_itself(from, to)?;
    let failed = || FileError::when("create directory", to);
    DirBuilder::new().mode(0o700).create(to).map_err(failed())?;
    let mut copying = Copying { manner, user: geteuid(), copied: Copied::default() };
    let placed = open_dir(AT_FDCWD, to).map_err(failed()).and_then(|copy| {
        let from = Place { fd: source, path: from.to_owned() };
        copying.dir(&from, &Place { fd: copy, path: to.to_owned() })
    });
    if placed.is_err() {
        // Report only the first failure. A later run removes what remains.
        let _ = durable::remove_tree(to);
    }
    placed.map(|()| copying.copied)
}

/// An open directory and its path, which is used only in messages.
struct Place {
    fd: OwnedFd,
    path: PathBuf,
}

impl Place {
    /// Returns the names of the entries, sorted.
    fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::from_fd(self.fd.try_clone()?)? {
            let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn stat(&self, name: &OsStr) -> io::Result<FileStat> {
        Ok(fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }
}

struct Copying {
    manner: Manner,
    user: Uid,
    copied: Copied,
}

impl Copying {
    fn dir(&mut self, from: &Place, to: &Place) -> Result<(), FileError> {
        let stat = fstat(&from.fd).map_err(io::Error::from);
        let stat = stat.map_err(FileError::when("read", &from.path))?;
        self.look_at(&stat, &from.path);
        for name in from.names().map_err(FileError::when("list", &from.path))? {
            self.entry(from, to, &name)?;
        }
        // This is done last, because adding entries changes the directory's times, and its final
        // mode may forbid adding entries.
        self.set_metadata(&to.fd, &stat)
            .map_err(FileError::when("set the mode and times of", &to.path))
    }

    fn entry(&mut self, from: &Place, to: &Place, name: &OsStr) -> Result<(), FileError> {
        let path = from.path.join(name);
        let failed = || FileError::when("copy", &path);
        let stat = from.stat(name).map_err(failed())?;
        match kind(&stat) {
            SFlag::S_IFDIR => {
                let from = open_dir(&from.fd, name).map_err(failed())?;
                let place = to.path.join(name);
                let made = mkdirat(&to.fd, name, Mode::S_IRWXU).map_err(io::Error::from);
                let made = made.and_then(|()| open_dir(&to.fd, name));
                let made = made.map_err(FileError::when("create directory", &place))?;
                self.dir(&Place { fd: from, path }, &Place { fd: made, path: place })
            }
            SFlag::S_IFREG => {
                self.look_at(&stat, &path);
                self.file(from, to, name, &stat).map_err(failed())
            }
            SFlag::S_IFLNK => self.symlink(from, to, name, &stat).map_err(failed()),
            special => {
                let kind = match special {
                    SFlag::S_IFIFO => "FIFO",
                    SFlag::S_IFSOCK => "socket",
                    _ => "device",
                };
                self.copied.left_out.push((path, kind));
                Ok(())
            }
        }
    }

    /// Records `path` if it is the first file or directory that other users can change.
    fn look_at(&mut self, stat: &FileStat, path: &Path) {
        if self.user.is_root() && self.copied.open_to_others.is_none() && is_open_to_others(stat) {
            self.copied.open_to_others = Some(path.to_owned());
        }
    }

    fn file(&self, from: &Place, to: &Place, name: &OsStr, stat: &FileStat) -> io::Result<()> {
        if self.manner.links && self.link(from, to, name, stat)? {
            return Ok(());
        }
        // If a FIFO has replaced the file, opening it must not block.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let source = openat(&from.fd, name, flags, Mode::empty()).map_err(unless_replaced)?;
        let stat = fstat(&source)?;
        if kind(&stat) != SFlag::S_IFREG {
            return Err(replaced());
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let copy = openat(&to.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let (mut source, mut copy) = (File::from(source), File::from(copy));
        io::copy(&mut source, &mut copy)?;
        self.set_metadata(&copy, &stat)
    }

    /// Creates a hard link. Returns false if the file must be copied instead.
    fn link(&self, from: &Place, to: &Place, name: &OsStr, stat: &FileStat) -> io::Result<bool> {
        let is_safe = stat.st_uid == self.user.as_raw() && stat.st_mode & NOT_TAKEN == 0;
        if self.manner.taken && !is_safe {
            return Ok(false);
        }
        match linkat(&from.fd, name, &to.fd, name, AtFlags::empty()) {
            Err(Errno::EXDEV | Errno::EPERM | Errno::EMLINK | Errno::EOPNOTSUPP) => {
                return Ok(false);
            }
            other => other?,
        }
        let linked = to.stat(name)?;
        // Inode numbers are not compared: creating a link makes overlayfs copy the file, and the
        // copy has another inode number.
        let identity =
            |it: &FileStat| (it.st_mode, it.st_uid, it.st_size, it.st_mtime, it.st_mtime_nsec);
        if identity(&linked) == identity(stat) {
            return Ok(true);
        }
        unlinkat(&to.fd, name, UnlinkatFlags::NoRemoveDir)?;
        Err(replaced())
    }

    fn symlink(&self, from: &Place, to: &Place, name: &OsStr, stat: &FileStat) -> io::Result<()> {
        let target = readlinkat(&from.fd, name)?;
        symlinkat(target.as_os_str(), &to.fd, name)?;
        let (user, group) = self.owner(stat);
        allowed(fchownat(&to.fd, name, Some(user), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW))?;
        let (accessed, modified) = times(stat);
        Ok(utimensat(&to.fd, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?)
    }

    /// Sets the owner, mode and times of an open file or directory.
    fn set_metadata(&self, fd: impl AsFd, stat: &FileStat) -> io::Result<()> {
        let (user, group) = self.owner(stat);
        allowed(fchown(&fd, Some(user), Some(group)))?;
        let removed = if self.manner.taken { NOT_TAKEN } else { 0 };
        fchmod(&fd, Mode::from_bits_truncate(stat.st_mode & !removed))?;
        let (accessed, modified) = times(stat);
        Ok(futimens(&fd, &accessed, &modified)?)
    }

    fn owner(&self, stat: &FileStat) -> (Uid, Gid) {
        match self.manner.taken {
            false => (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)),
            true if self.user.is_root() => (self.user, Gid::from_raw(0)),
            true => (self.user, getegid()),
        }
    }
}

/// Returns the nearest directory above `path` and below `root` in which users other than root can
/// replace entries. Returns `None` if there is none, or if this process is not root.
pub(crate) fn dir_open_to_others(path: &Path, root: &Path) -> Option<PathBuf> {
    let is_open = |dir: &&Path| {
        nix::sys::stat::stat(*dir).is_ok_and(|stat| {
            // In a sticky directory, users can replace only their own entries.
            let of_root = stat.st_uid == 0 && stat.st_mode & Mode::S_ISVTX.bits() != 0;
            is_open_to_others(&stat) && !of_root
        })
    };
    let mut above = path.ancestors().skip(1).take_while(|dir| *dir != root);
    above.find(|dir| geteuid().is_root() && is_open(dir)).map(Path::to_owned)
}

/// Returns true if users other than root can change a file or directory with this metadata.
fn is_open_to_others(stat: &FileStat) -> bool {
    let by_group = stat.st_mode & 0o020 != 0 && stat.st_gid != 0;
    stat.st_uid != 0 || by_group || stat.st_mode & 0o002 != 0
}

fn open_dir(parent: impl AsFd, name: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name.as_ref(), flags, Mode::empty()).map_err(unless_replaced)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn times(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    (accessed, TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}

/// Ignores the error that users other than root get when they change the owner of a file. The copy
/// then belongs to the user of this process, as with `cp -a`.
fn allowed(owned: nix::Result<()>) -> io::Result<()> {
    match owned {
        Err(Errno::EPERM | Errno::EACCES) => Ok(()),
        other => Ok(other?),
    }
}

fn replaced() -> io::Error {
    io::Error::other("replaced while being copied")
}

/// Returns the error for an entry that could not be opened. For `ELOOP` and `ENOTDIR`, the error
/// says that a link has replaced the entry.
fn unless_replaced(error: Errno) -> io::Error {
    match error {
        Errno::ELOOP | Errno::ENOTDIR => replaced(),
        other => other.into(),
    }
}

/// Fails if `to` is inside `from`, because copying would continue until the disk is full.
///
/// Compares the directories' inodes instead of their paths, because a path through /proc/self/fd
/// cannot be resolved to the directory's real path.
fn refuse_copy_into_itself(from: &Path, to: &Path) -> Result<(), FileError> {
    let identity = |path: &Path| {
        let meta = fs::metadata(path).map_err(FileError::when("examine", path))?;
        Ok((meta.dev(), meta.ino()))
    };
    let source = identity(from)?;
    let parent = to.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    let mut dir = parent.to_owned();
    let mut current = identity(&dir)?;
    loop {
        if current == source {
            let inside =
                io::Error::new(ErrorKind::InvalidInput, "the destination is inside the source");
            return Err(FileError::when("copy", from)(inside));
        }
        dir.push("..");
        let above = identity(&dir)?;
        if above == current {
            return Ok(()); // the root directory
        }
        current = above;
    }
}

#[cfg(test)]
mod tests;
