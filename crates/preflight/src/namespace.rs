//! Gives a process mounts of its own, and makes the machine read-only for it.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

use dkms_engine::os::mount_table::{self, Mount};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::not_tried::NotTried;

/// The mounts that this thread sees (proc_pid_mounts(5)).
const MOUNTS: &str = "/proc/thread-self/mounts";

/// An argument of mount(2) that a call does not use.
const NONE: Option<&str> = None;

/// Enters a new mount namespace. Mounts inside are not visible outside, and vice versa. The host
/// name and System V IPC objects are private, too. This process must have only one thread.
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

/// Bind-mounts the file or directory `from` on `at`, including all mounts below `from`.
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
/// Changes each mount separately, because mount(8) before util-linux 2.42 silently ignores a
/// recursive change.
pub(crate) fn make_read_only(writable: &[&Path]) -> Result<(), NotTried> {
    let mounts = mount_table::read(Path::new(MOUNTS))
        .map_err(|error| NotTried::new(format!("cannot read the mounts: {error}")))?;
    for Mount { dir, kind, options } in mounts {
        if writable.contains(&dir.as_path()) || kind == "autofs" {
            continue;
        }
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        match mount(NONE, &dir, NONE, read_only | flags(&options), NONE) {
            // Another mount on the same path or above it hides this one.
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => {}
            // A user's FUSE mount can refuse access to root. No build needs the files on it.
            Err(_) => umount2(&dir, MntFlags::MNT_DETACH).map_err(|errno| failed(&dir, errno))?,
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

/// Returns the flags of the mount `options` that a remount must keep.
fn flags(options: &str) -> MsFlags {
    options.split(',').filter_map(flag).collect()
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

#[cfg(test)]
mod tests;
