//! Links to `dkms-confine` that come first in PATH while confs are evaluated and modules are built.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::machine::Machine;
use crate::os::durable::{self, FileError};

/// Creates links named `make` and, if `names_target` is true and builds have their own mounts,
/// `uname`. Returns their directory.
///
/// `make` joins the run's jobserver. `uname` prints the release of the target kernel. Without the
/// link, it prints the release of the running kernel, as with dkms.
///
/// A build without its own mounts sees facts about the running kernel in /proc, and must not mix
/// them with the release of another kernel.
///
/// # Errors
/// [`FileError`] if the directory or a link cannot be changed.
pub(crate) fn path_programs(machine: &Machine, names_target: bool) -> Result<PathBuf, FileError> {
    let (dir, names): (_, &[&str]) = if names_target && machine.has_own_mounts() {
        (machine.trees.target_programs(), &["make", "uname"])
    } else {
        (machine.trees.running_programs(), &["make"])
    };
    for name in names {
        let link = dir.join(name);
        let program = &machine.tools.confine;
        if fs::read_link(&link).ok().as_ref() != Some(program) {
            durable::create_dirs(&dir)?;
            durable::remove_file_if_there(&link)?;
            symlink(program, &link).map_err(FileError::when("create", &link))?;
        }
    }
    Ok(dir)
}
