//! Unpacks the parts of a package file that builds need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dkms_engine::machine::Target;
use dkms_engine::os::durable::{self, FileError};
use dkms_engine::os::process::{Ended, Environment, Program};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use crate::not_tried::NotTried;

/// The paths that must be directories and not, for example, links to directories of the machine.
const DIRECTORIES: [&str; 4] = ["usr", "usr/src", "usr/lib", "usr/lib/modules"];

/// The time limit for unpacking one package.
const TIMEOUT: Duration = Duration::from_secs(300);

/// An arriving package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Package {
    /// The name, e.g. `linux-headers`.
    pub(crate) name: String,
    /// The full version, e.g. `7.2.13-1`.
    pub(crate) version: String,
    pub(crate) file: PathBuf,
    /// The arriving paths in this package, without a leading `/`.
    pub(crate) targets: BTreeSet<String>,
    /// The files that pacman does not extract, without a leading `/`.
    pub(crate) not_extracted: Vec<String>,
}

/// Unpacks the sources, headers and kernels of a package below `root`, a directory of scratch
/// space. Omits kernel objects, since builds do not need them.
///
/// # Errors
/// [`NotTried`] if the file is not a complete archive, or if it contains anything but files,
/// directories and links, which no package of a kernel or a module does.
pub(crate) fn unpack(package: &Package, root: &Path) -> Result<(), NotTried> {
    let Package { file, targets, not_extracted, .. } = package;
    let unreadable = |why: &str| NotTried::new(format!("{}: cannot unpack: {why}", file.display()));
    let env = Environment::fixed();
    let patterns: BTreeSet<String> = targets.iter().filter_map(|path| pattern(path)).collect();
    // bsdtar refuses absolute names, names with `..`, and paths through links.
    let ended = Program::new("bsdtar", &env)
        .args(["-xpf".as_ref(), file.as_os_str(), "-C".as_ref(), root.as_os_str()])
        .args(["--no-fflags", "--no-xattrs", "--no-acls"])
        .args(patterns.iter().flat_map(|pattern| ["--include", pattern]))
        .deadline(TIMEOUT)
        .run()
        .map_err(|error| unreadable(&error.to_string()))?;
    if !ended.success() {
        return Err(unreadable(ended.complaint().lines().next().unwrap_or("bsdtar failed")));
    }
    check(root).map_err(|why| unreadable(&why))?;
    for path in not_extracted {
        durable::remove_file_if_there(&root.join(path))?;
    }
    Ok(())
}

/// Stores a package's list of files below `lists`, as pacman does in its database directory. The
/// caller must unpack all of the package's files first. Does nothing for a package without headers
/// or without a list.
///
/// # Errors
/// [`NotTried`] if the list cannot be stored.
pub(crate) fn store_list(package: &Package, lists: &Path) -> Result<(), NotTried> {
    let is_of_headers = |path: &String| matches!(Target::parse(path), Some(Target::Headers(_)));
    if !package.targets.iter().any(is_of_headers) {
        return Ok(());
    }
    let env = Environment::fixed();
    let listed = Program::new("bsdtar", &env)
        .args(["-xOqf".as_ref(), package.file.as_os_str(), ".MTREE".as_ref()])
        .deadline(TIMEOUT)
        .run();
    let Some(list) = listed.ok().filter(Ended::success) else { return Ok(()) };
    let dir = lists.join("local").join(format!("{}-{}", package.name, package.version));
    durable::create_dirs(&dir)?;
    let write = |name: &str, content: &[u8]| {
        fs::write(dir.join(name), content).map_err(FileError::when("write", &dir))
    };
    write("mtree", &list.output)?;
    // As in pacman's database, this file marks the end of the installation.
    Ok(write("files", b"")?)
}

/// Returns bsdtar's pattern for the files that belong to a target. bsdtar fails if a pattern
/// matches nothing, so each pattern also matches the target itself.
fn pattern(target: &str) -> Option<String> {
    Some(match Target::parse(target)? {
        Target::Source(name) => escape(&format!("usr/src/{name}")) + "/*",
        Target::Headers(release) if target.ends_with("/build") => {
            escape(&format!("usr/lib/modules/{release}/build"))
        }
        Target::Headers(release) => escape(&format!("usr/lib/modules/{release}/build")) + "/*",
        // Matches pkgbase, modules.order, modules.builtin and similar names, but not kernel/.
        Target::Kernel(release) => {
            escape(&format!("usr/lib/modules/{release}")) + "/[mp][ok][dg][ub]*"
        }
    })
}

/// Escapes the characters that are special in patterns.
fn escape(path: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\');
    path.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// Checks the files that have been unpacked below `root`.
fn check(root: &Path) -> Result<(), String> {
    for dir in DIRECTORIES {
        let meta = fs::symlink_metadata(root.join(dir));
        if meta.is_ok_and(|meta| !meta.is_dir()) {
            return Err(format!("contains {dir}, which is not a directory"));
        }
    }
    for entry in WalkDir::new(root) {
        let entry = entry.map_err(|error| error.to_string())?;
        let kind = entry.file_type();
        if !kind.is_file() && !kind.is_dir() && !kind.is_symlink() {
            return Err(format!("contains a special file: {}", entry.path().display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
