//! Finds the program that this one wraps.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The file name of this program's executable.
const THIS: &str = "dkms-confine";

/// Returns the first program `name` in PATH that is not a link to this program; `None` if there is
/// no such program.
///
/// This program is recognised by its name, because a chroot may lack /proc/self/exe.
pub(crate) fn real_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let programs = env::split_paths(&path).map(|dir| dir.join(name)).collect::<Vec<_>>();
    programs.into_iter().find(|program| is_program(program) && !is_this(program))
}

fn is_this(program: &Path) -> bool {
    fs::canonicalize(program).is_ok_and(|real| real.file_name() == Some(OsStr::new(THIS)))
}

/// Returns true if `path` is an executable file.
fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
