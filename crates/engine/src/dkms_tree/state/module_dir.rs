//! Reads one module's directory in the dkms tree.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Added, BuiltFor, SourceState};
use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId, ModuleName, ModuleVersion};
use crate::os::symlinks;

/// Directories of `T/M/V` that are no kernels: dkms's own, and those that old releases left.
const NO_KERNELS: [&str; 6] = ["build", "source", "tarball", "driver_disk", "rpm", "deb"];

/// Where dkms keeps the kernel's own objects: beside the versions, but none.
const ORIGINALS: &str = "original_module";

/// One module's directory in the dkms tree.
pub(super) struct ModuleDir<'a> {
    pub(super) trees: &'a Trees,
    pub(super) name: &'a ModuleName,
    pub(super) dir: &'a Path,
}

impl ModuleDir<'_> {
    /// All versions, with what is built of them.
    pub(super) fn versions(&self, problems: &mut Vec<String>) -> Vec<Added> {
        // A version that looks like an installed link is hidden in dkms too.
        let versions = dirs_but(self.dir, is_no_version, |t| t.parse::<ModuleVersion>(), problems);
        let id = |version| ModuleId { name: self.name.clone(), version };
        versions.into_iter().map(|(v, dir)| self.added(id(v), &dir, problems)).collect()
    }

    fn added(&self, id: ModuleId, dir: &Path, problems: &mut Vec<String>) -> Added {
        let mut kernels = Vec::new();
        let releases = dirs_but(dir, is_no_kernel, |t| t.parse::<KernelRelease>(), problems);
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

    /// Returns true if `T/M/kernel-K-A` leads to the directory `dir`, by whatever path.
    fn is_installed(&self, id: &ModuleId, kernel: &KernelRelease, arch: &Arch, dir: &Path) -> bool {
        let link = self.trees.installed_link(&id.name, kernel, arch);
        let Ok(target) = fs::read_link(&link) else { return false };
        // As dkms and we write it.
        let usual: PathBuf = [id.version.as_str(), kernel.as_str(), arch.as_str()].iter().collect();
        let there = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        target == usual
            || symlinks::resolve(&self.trees.root, &link)
                .is_ok_and(|to| there(&to).is_some_and(|to| there(dir) == Some(to)))
    }
}

/// A module version with what was found of its kernels.
fn added(trees: &Trees, id: ModuleId, kernels: Vec<BuiltFor>) -> Added {
    let link = trees.source_link(&id);
    let source = match fs::symlink_metadata(&link) {
        Ok(meta) if meta.is_symlink() => SourceState::Link {
            target: fs::read_link(&link).unwrap_or_default(),
            resolves: symlinks::leads_to_dir(&trees.root, &link),
        },
        Ok(meta) if meta.is_dir() => SourceState::BinariesOnly,
        _ => SourceState::Missing,
    };
    let has_source_dir = trees.source.join(id.source_dir()).is_dir();
    Added { id, source, has_source_dir, kernels }
}

fn is_no_kernel(name: &str) -> bool {
    NO_KERNELS.contains(&name)
}

fn is_no_version(name: &str) -> bool {
    name == ORIGINALS || name.starts_with("kernel-")
}

/// The directories in `dir` by their names, in order. Files and what starts with a dot are
/// passed over; names that are unfit are problems.
pub(super) fn dirs<N: Ord, E: std::fmt::Display>(
    dir: &Path,
    name: impl Fn(&str) -> Result<N, E>,
    problems: &mut Vec<String>,
) -> Vec<(N, PathBuf)> {
    dirs_but(dir, |_| false, name, problems)
}

/// As [`dirs`], without those whose names are `unwanted`. That is checked first, for a module has a
/// link for every kernel.
fn dirs_but<N: Ord, E: std::fmt::Display>(
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
                problems.push(format!("{} is passed over: {error}", path.display()));
            }
            None => {
                let path = path.display();
                problems.push(format!("{path} is passed over: its name is not UTF-8"));
            }
        }
    }
    dirs.sort_by(|a, b| a.0.cmp(&b.0));
    dirs
}
