//! Reads one module's directory in the dkms tree.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Added, BuiltFor, SourceState};
use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId, ModuleName, ModuleVersion};
use crate::os::symlinks;

/// The directories in `T/M/V` that are not kernel releases. The last three are from old dkms
/// versions.
const NOT_KERNELS: [&str; 6] = ["build", "source", "tarball", "driver_disk", "rpm", "deb"];

/// The directory in `T/M` in which dkms keeps original modules.
const ORIGINALS: &str = "original_module";

/// One module's directory in the dkms tree.
pub(super) struct ModuleDir<'a> {
    pub(super) trees: &'a Trees,
    pub(super) name: &'a ModuleName,
    pub(super) dir: &'a Path,
}

impl ModuleDir<'_> {
    /// Returns all versions of the module with their builds. Adds a message to `problems` for each
    /// directory whose name is invalid.
    pub(super) fn versions(&self, problems: &mut Vec<String>) -> Vec<Added> {
        // Like dkms, this hides a version whose name looks like an installed link (`kernel-…`).
        let versions =
            dirs_except(self.dir, is_not_a_version, |t| t.parse::<ModuleVersion>(), problems);
        let id = |version| ModuleId { name: self.name.clone(), version };
        versions.into_iter().map(|(v, dir)| self.added(id(v), &dir, problems)).collect()
    }

    fn added(&self, id: ModuleId, dir: &Path, problems: &mut Vec<String>) -> Added {
        let mut kernels = Vec::new();
        let releases = dirs_except(dir, is_not_a_kernel, |t| t.parse::<KernelRelease>(), problems);
        for (kernel, dir) in releases {
            for (arch, dir) in dirs(&dir, |text| text.parse::<Arch>(), problems) {
                let has_module_dir = dir.join("module").is_dir();
                let installed = has_module_dir && self.is_installed(&id, &kernel, &arch, &dir);
                let kernel = kernel.clone();
                kernels.push(BuiltFor { kernel, arch, has_module_dir, installed });
            }
        }
        added(self.trees, id, kernels)
    }

    /// Returns true if the link `T/M/kernel-K-A` leads to the directory `dir`, even through other
    /// links.
    fn is_installed(&self, id: &ModuleId, kernel: &KernelRelease, arch: &Arch, dir: &Path) -> bool {
        let link = self.trees.installed_link(&id.name, kernel, arch);
        let Ok(target) = fs::read_link(&link) else { return false };
        // The text of links that dkms and alpm-dkms create.
        let usual: PathBuf = [id.version.as_str(), kernel.as_str(), arch.as_str()].iter().collect();
        let there = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        target == usual
            || symlinks::resolve(&self.trees.root, &link)
                .is_ok_and(|to| there(&to).is_some_and(|to| there(dir) == Some(to)))
    }
}

/// Returns the module version `id` with its builds and the state of its source link.
fn added(trees: &Trees, id: ModuleId, kernels: Vec<BuiltFor>) -> Added {
    let link = trees.source_link(&id);
    let source = match fs::symlink_metadata(&link) {
        Ok(meta) if meta.is_symlink() => SourceState::Link {
            target: fs::read_link(&link).unwrap_or_default(),
            dir: symlinks::resolve(&trees.root, &link).ok().filter(|dir| dir.is_dir()),
        },
        Ok(meta) if meta.is_dir() => SourceState::BinariesOnly,
        _ => SourceState::Missing,
    };
    let has_source_dir = trees.source.join(id.source_dir()).is_dir();
    Added { id, source, has_source_dir, kernels }
}

/// Returns true if `T/M/V/name` is not a kernel's directory.
pub(in crate::dkms_tree) fn is_not_a_kernel(name: &str) -> bool {
    NOT_KERNELS.contains(&name)
}

/// Returns true if `T/M/name` is not a version's directory.
pub(in crate::dkms_tree) fn is_not_a_version(name: &str) -> bool {
    name == ORIGINALS || name.starts_with("kernel-")
}

/// Returns the subdirectories of `dir` with their parsed names, sorted by name.
///
/// Skips files and names that start with a dot. Adds a message to `problems` for each directory
/// whose name is invalid.
pub(super) fn dirs<N: Ord, E: std::fmt::Display>(
    dir: &Path,
    name: impl Fn(&str) -> Result<N, E>,
    problems: &mut Vec<String>,
) -> Vec<(N, PathBuf)> {
    dirs_except(dir, |_| false, name, problems)
}

/// Like [`dirs`], but skips the names for which `unwanted` returns true.
///
/// Checks names before file types: a module's directory contains a link for every kernel, and
/// checking the type of each link would need a stat.
fn dirs_except<N: Ord, E: std::fmt::Display>(
    dir: &Path,
    unwanted: impl Fn(&str) -> bool,
    name: impl Fn(&str) -> Result<N, E>,
    problems: &mut Vec<String>,
) -> Vec<(N, PathBuf)> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problems.push(format!("cannot list {}: {error}", dir.display()));
            return Vec::new();
        }
    };
    let mut dirs = Vec::new();
    for entry in entries.flatten() {
        let file = entry.file_name();
        if file.as_encoded_bytes().starts_with(b".") || file.to_str().is_some_and(&unwanted) {
            continue;
        }
        let path = entry.path();
        let is_dir = match entry.file_type() {
            Ok(kind) if !kind.is_symlink() => kind.is_dir(),
            _ => path.is_dir(),
        };
        if !is_dir {
            continue;
        }
        match file.to_str().map(&name) {
            Some(Ok(name)) => dirs.push((name, path)),
            Some(Err(error)) => {
                problems.push(format!("{}: ignored: {error}", path.display()));
            }
            None => {
                let path = path.display();
                problems.push(format!("{path}: ignored: name is not valid UTF-8"));
            }
        }
    }
    dirs.sort_by(|a, b| a.0.cmp(&b.0));
    dirs
}
