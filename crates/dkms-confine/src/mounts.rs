//! Creates the mounts that only the confined program and its descendants see.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::arguments::Arguments;

/// An argument of mount(2) that a call does not use.
const NONE: Option<&str> = None;

/// Enters a new mount namespace and creates all mounts except /proc.
pub(crate) fn mount_all(arguments: &Arguments) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // The machine does not see the mounts of this namespace. If the machine unmounts a file system,
    // it is also unmounted here.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?;
    for (from, at) in &arguments.binds {
        create_mount_point(from, at)
            .and_then(|()| bind(from, at))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", at.display())))?;
    }
    Ok(())
}

/// Mounts a /proc that shows the processes of this process's pid namespace, and masks the files in
/// `arguments.masked`.
///
/// Some containers forbid this mount. The machine's /proc then stays visible.
pub(crate) fn mount_proc(arguments: &Arguments) {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let _ = mount(Some("proc"), "/proc", Some("proc"), flags, NONE);
    for file in arguments.masked.iter().filter(|file| file.exists()) {
        let _ = bind(Path::new("/dev/null"), file);
    }
}

/// Mounts the file or directory `from`, with the file systems below it, over `at`.
fn bind(from: &Path, at: &Path) -> io::Result<()> {
    Ok(mount(Some(from), at, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?)
}

fn create_mount_point(from: &Path, at: &Path) -> io::Result<()> {
    let from = fs::metadata(from)?;
    if at.exists() {
        return Ok(());
    }
    if from.is_dir() {
        return fs::create_dir_all(at);
    }
    at.parent().map_or(Ok(()), fs::create_dir_all)?;
    File::create(at).map(|_| ())
}
