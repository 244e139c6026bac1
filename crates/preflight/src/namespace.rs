//! Gives a process mounts of its own, and makes the machine read-only for it.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::not_tried::NotTried;

/// An argument of mount(2) that a call does not use.
const NONE: Option<&str> = None;

/// Enters a new mount namespace. Mounts inside are not visible outside, and vice versa. The host name
/// and System V IPC objects are private, too. This process must have only one thread.
pub(crate) fn enter() -> Result<(), NotTried> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    unshare(own)
        .and_then(|()| mount(NONE, "/", NONE, private, NONE))
        .map_err(|errno| NotTried::new(format!("cannot mount directories: {}", errno.desc())))
}

/// Mounts a file system in memory of at most `size` bytes on `dir`.
pub(crate) fn mount_memory(dir: &Path, size: u64) -> Result<(), NotTried> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("mode=0755,size={size}");
    mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|errno| failed(dir, errno))
}

/// Mounts the file or directory `from`, with all mounts below it, over `at`.
pub(crate) fn bind(from: &Path, at: &Path) -> Result<(), NotTried> {
    mount(Some(from), at, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .map_err(|errno| failed(at, errno))
}

/// Makes the mount on `dir` writable again, after [`make_read_only`].
pub(crate) fn make_writable(dir: &Path) -> Result<(), NotTried> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(NONE, dir, NONE, flags, NONE).map_err(|errno| failed(dir, errno))
}

/// Mounts a /proc that shows the processes of this pid namespace. Some containers forbid this. The
/// machine's /proc then stays visible.
pub(crate) fn mount_proc() {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let _ = mount(Some("proc"), "/proc", Some("proc"), flags, NONE);
}

/// Makes all mounts read-only except those on the directories in `writable`.
///
/// Each mount is changed by itself: mount(8) before util-linux 2.42 ignores a recursive change
/// silently.
pub(crate) fn make_read_only(writable: &[&Path]) -> Result<(), NotTried> {
    let table = fs::read("/proc/thread-self/mountinfo")
        .map_err(|error| NotTried::new(format!("cannot read the mounts: {error}")))?;
    for mounted in table.split(|byte| *byte == b'\n').filter_map(Mounted::parse) {
        if writable.contains(&mounted.at.as_path()) || mounted.kind == "autofs" {
            continue;
        }
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | mounted.flags;
        match mount(NONE, &mounted.at, NONE, flags, NONE) {
            // The mount is hidden by another one on the same path or above it.
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => {}
            // A user's FUSE mount can refuse root. Nothing that a build needs is there.
            Err(_) => umount2(&mounted.at, MntFlags::MNT_DETACH)
                .map_err(|errno| failed(&mounted.at, errno))?,
        }
    }
    Ok(())
}

/// Checks that no file can be created in any of `dirs`.
pub(crate) fn verify_read_only(dirs: &[&Path]) -> Result<(), NotTried> {
    for dir in dirs {
        let probe = dir.join(".alpm-dkms-probe");
        match OpenOptions::new().write(true).create_new(true).open(&probe) {
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(_) => {
                let _ = fs::remove_file(&probe);
                return Err(NotTried::new(format!("{}: cannot be made read-only", dir.display())));
            }
            Err(error) => return Err(NotTried::new(format!("{}: {error}", dir.display()))),
        }
    }
    Ok(())
}

fn failed(path: &Path, errno: Errno) -> NotTried {
    NotTried::new(format!("{}: cannot mount: {}", path.display(), io::Error::from(errno)))
}

/// A line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    at: PathBuf,
    /// The options of the mount that must be kept when it is mounted again.
    flags: MsFlags,
    /// The type of the file system.
    kind: String,
}

impl Mounted {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let at = unescape(fields.nth(4)?);
        let options = str::from_utf8(fields.next()?).ok()?;
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Self {
            at,
            flags: options.split(',').filter_map(flag).collect(),
            kind: String::from_utf8_lossy(kind).into_owned(),
        })
    }
}

fn flag(option: &str) -> Option<MsFlags> {
    Some(match option {
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        _ => return None,
    })
}

/// Replaces the octal escapes of blanks, tabs, newlines and backslashes.
fn unescape(text: &[u8]) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let escapes = [(b"040", b' '), (b"011", b'\t'), (b"012", b'\n'), (b"134", b'\\')];
        let escape = escapes.iter().find(|(code, _)| *first == b'\\' && after.starts_with(*code));
        path.push(escape.map_or(*first, |(_, byte)| *byte));
        rest = &after[escape.map_or(0, |(code, _)| code.len())..];
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests;
