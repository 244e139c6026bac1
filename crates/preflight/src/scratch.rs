//! Builds the trees as they will be after a transaction, in scratch space.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry, FileType};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use dkms_engine::machine::Trees;
use dkms_engine::names::KernelRelease;
use dkms_engine::os::durable::{self, FileError};
use dkms_engine::os::process::{Environment, Program};
use serde::{Deserialize, Serialize};

use crate::namespace;
use crate::not_tried::NotTried;
use crate::package_file::{Package, store_list, unpack};
use crate::scratch_dir::PREFIX;

/// The directories of a kernel in which modules are installed. A trial can install modules in these
/// directories, because they are copied; all other directories are bind-mounted read-only.
const MODULE_DIRS: [&str; 5] = ["updates", "extramodules", "extra", "misc", "weak-updates"];

/// The entries of a kernel's directory that belong to its headers.
pub(crate) const HEADERS: [&str; 2] = ["build", "source"];

/// The size in bytes up to which a file is copied. Larger files are bind-mounted instead.
const SMALL: u64 = 8 << 20;

/// The maximum number of paths that are passed to one program. The size of its arguments is limited
/// to a quarter of the maximum stack size (execve(2)).
const PATHS_AT_ONCE: usize = 256;

/// The entries of the dkms tree that a trial does not see: other runs' work, and entries that would
/// only take up space.
const LEFT_OUT: [&str; 7] = [".bin", ".build", ".cache", ".images", ".lock", ".log", ".pending"];

/// The directories of compiler launchers in the cache of the dkms tree.
const LAUNCHERS: [&str; 2] = ["ccache", "distcc"];

/// The sources and kernels that a transaction removes or replaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Departing {
    /// The names of directories in `/usr/src`.
    pub(crate) sources: BTreeSet<String>,
    /// The kernels whose own files are removed or replaced.
    pub(crate) kernels: BTreeSet<KernelRelease>,
    /// The kernels whose headers are removed or replaced.
    pub(crate) headers: BTreeSet<KernelRelease>,
}

/// The trees in scratch space.
pub(crate) struct Scratch<'a> {
    trees: &'a Trees,
    departing: &'a Departing,
    /// The directory into which packages are unpacked.
    root: PathBuf,
    dkms: PathBuf,
    /// The directory for the file lists of arriving packages.
    lists: PathBuf,
    temporary: [PathBuf; 2],
}

impl<'a> Scratch<'a> {
    /// Prepares empty trees below `dir`.
    pub(crate) fn new(
        trees: &'a Trees,
        departing: &'a Departing,
        dir: &Path,
    ) -> Result<Self, NotTried> {
        let scratch = Self {
            trees,
            departing,
            root: dir.join("root"),
            dkms: dir.join("dkms"),
            lists: dir.join("lists"),
            temporary: [dir.join("tmp"), dir.join("var-tmp")],
        };
        let [tmp, var_tmp] = &scratch.temporary;
        let Self { dkms, lists, .. } = &scratch;
        for made in
            [&scratch.kernels(), &scratch.sources(), dkms, &lists.join("local"), tmp, var_tmp]
        {
            durable::create_dirs(made)?;
        }
        Ok(scratch)
    }

    fn kernels(&self) -> PathBuf {
        self.root.join("usr/lib/modules")
    }

    fn sources(&self) -> PathBuf {
        self.root.join("usr/src")
    }

    /// Unpacks an arriving package and stores its list of files. The caller must unpack all
    /// packages before it calls [`fill`](Self::fill), which mounts directories of the machine in
    /// the trees.
    pub(crate) fn unpack(&self, package: &Package) -> Result<(), NotTried> {
        unpack(package, &self.root)?;
        store_list(package, &self.lists)
    }

    /// Returns the directory with the file lists of arriving packages, in the format of pacman's
    /// database directory.
    pub(crate) fn lists(&self) -> &Path {
        &self.lists
    }

    /// Returns the location of `target`, a path in a package, in the scratch trees.
    pub(crate) fn path(&self, target: &str) -> PathBuf {
        self.root.join(target)
    }

    /// Adds the files that stay in the directories of arriving sources. Omits files that an
    /// arriving package also contains.
    pub(crate) fn add_staying(&self, files: &BTreeSet<String>) -> Result<(), NotTried> {
        let mut dirs: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
        for file in files {
            let to = self.path(file);
            if let (Some(dir), Err(_)) = (to.parent(), fs::symlink_metadata(&to)) {
                dirs.entry(dir.to_owned()).or_default().push(self.trees.root.join(file));
            }
        }
        for (dir, files) in dirs {
            durable::create_dirs(&dir)?;
            copy(&files, &dir)?;
        }
        Ok(())
    }

    /// Adds everything in the machine's trees that stays.
    pub(crate) fn fill(&self) -> Result<(), NotTried> {
        let departs = |entry: &DirEntry| {
            entry.file_name().to_str().is_some_and(|name| self.departing.sources.contains(name))
        };
        let sources = entries(&self.trees.source)?;
        add_entries(sources.iter().filter(|entry| !departs(entry)), &self.sources())?;
        let (mut kernels, mut others) = (Vec::new(), Vec::new());
        for entry in entries(&self.trees.install)? {
            if kind(&entry)?.is_dir() { kernels.push(entry) } else { others.push(entry) }
        }
        kernels.iter().try_for_each(|kernel| self.add_kernel(kernel))?;
        add_entries(&others, &self.kernels())?;
        self.copy_dkms_tree()?;
        self.mount_launchers()
    }

    fn add_kernel(&self, kernel: &DirEntry) -> Result<(), NotTried> {
        let name = kernel.file_name();
        let release = KernelRelease::from_entry(&name).ok();
        let is_in = |set: &BTreeSet<KernelRelease>| {
            release.as_ref().is_some_and(|release| set.contains(release))
        };
        let to = self.kernels().join(&name);
        // A package that is installed again replaces only its own files.
        let arrives = to.is_dir();
        let (departs, headers_depart) =
            (is_in(&self.departing.kernels) && !arrives, is_in(&self.departing.headers));
        let stays = |entry: &DirEntry| {
            let is_header = HEADERS.iter().any(|name| entry.file_name() == *name);
            if is_header { !headers_depart } else { !departs }
        };
        let staying = entries(&kernel.path())?.into_iter().filter(stays);
        let is_for_modules =
            |entry: &DirEntry| MODULE_DIRS.iter().any(|dir| entry.file_name() == *dir);
        let (module_dirs, others): (Vec<_>, Vec<_>) = staying.partition(is_for_modules);
        if module_dirs.is_empty() && others.is_empty() {
            return Ok(());
        }
        durable::create_dirs(&to)?;
        copy(&module_dirs.iter().map(DirEntry::path).collect::<Vec<_>>(), &to)?;
        add_entries(&others, &to)
    }

    /// Copies the dkms tree without the build directories of failed builds.
    fn copy_dkms_tree(&self) -> Result<(), NotTried> {
        let mut paths = Vec::new();
        for entry in entries(&self.trees.dkms)? {
            let name = entry.file_name();
            let begins_with = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
            if LEFT_OUT.iter().any(|out| name == *out) || begins_with(PREFIX) {
                continue;
            }
            let is_module = kind(&entry)?.is_dir() && !begins_with(".");
            if !is_module {
                paths.push(entry.path());
                continue;
            }
            for version in entries(&entry.path())? {
                if !kind(&version)?.is_dir() {
                    paths.push(version.path());
                    continue;
                }
                // The version's directory may contain nothing but a build directory.
                durable::create_dirs(&self.dkms.join(&name).join(version.file_name()))?;
                let parts = entries(&version.path())?.into_iter();
                let parts = parts.filter(|part| part.file_name() != "build");
                paths.extend(parts.map(|part| part.path()));
            }
        }
        let below = |path: &PathBuf| path.strip_prefix(&self.trees.dkms).ok().map(Path::to_owned);
        let paths: Vec<PathBuf> = paths.iter().filter_map(below).collect();
        run_cp(&["--parents"], &self.trees.dkms, &paths, &self.dkms)
    }

    /// Bind-mounts the caches of compiler launchers. These caches stay writable, since their
    /// contents do not depend on the arriving packages.
    fn mount_launchers(&self) -> Result<(), NotTried> {
        for name in LAUNCHERS {
            let from = self.trees.dkms.join(".cache").join(name);
            if !from.is_dir() {
                continue;
            }
            let at = self.dkms.join(".cache").join(name);
            durable::create_dirs(&at)?;
            namespace::bind(&from, &at)?;
            namespace::make_writable(&at)?;
        }
        Ok(())
    }

    /// Mounts the trees over those of the machine, and private directories over /tmp and /var/tmp.
    pub(crate) fn mount(&self) -> Result<(), NotTried> {
        let [tmp, var_tmp] = &self.temporary;
        let mounts = [
            (self.kernels(), self.trees.install.as_path()),
            (self.sources(), &self.trees.source),
            (tmp.clone(), Path::new("/tmp")),
            (var_tmp.clone(), Path::new("/var/tmp")),
            // This mount comes last, because it hides the scratch space itself.
            (self.dkms.clone(), &self.trees.dkms),
        ];
        // Skip directories that do not exist: there is nothing to hide, and the file system is
        // already read-only.
        let mut there = mounts.iter().filter(|(_, at)| at.exists());
        there.try_for_each(|(from, at)| namespace::bind(from, at))
    }
}

/// Makes entries of one of the machine's directories available in the directory `to`, except those
/// for which an arriving package contains an entry with the same name. Directories and large files
/// are bind-mounted; links and small files are copied.
fn add_entries<'a>(
    entries: impl IntoIterator<Item = &'a DirEntry>,
    to: &Path,
) -> Result<(), NotTried> {
    let mut small_files = Vec::new();
    for entry in entries {
        let (from, at) = (entry.path(), to.join(entry.file_name()));
        if fs::symlink_metadata(&at).is_ok() {
            continue;
        }
        let kind = kind(entry)?;
        if kind.is_symlink() {
            let target = fs::read_link(&from).map_err(FileError::when("read", &from))?;
            symlink(target, &at).map_err(FileError::when("create", &at))?;
        } else if kind.is_dir() {
            durable::create_dirs(&at)?;
            namespace::bind(&from, &at)?;
        } else if kind.is_file() && size(entry)? <= SMALL {
            small_files.push(from);
        } else {
            fs::File::create(&at).map_err(FileError::when("create", &at))?;
            namespace::bind(&from, &at)?;
        }
    }
    copy(&small_files, to)
}

/// Returns the size of an entry in bytes.
fn size(entry: &DirEntry) -> Result<u64, FileError> {
    Ok(entry.metadata().map_err(FileError::when("examine", &entry.path()))?.len())
}

/// Copies files and directories into the directory `to`, with their owners, modes and times.
fn copy(from: &[PathBuf], to: &Path) -> Result<(), NotTried> {
    run_cp(&[], Path::new("/"), from, to)
}

/// Runs cp(1) in the directory `dir`, with the additional `options`.
fn run_cp(options: &[&str], dir: &Path, from: &[PathBuf], to: &Path) -> Result<(), NotTried> {
    let env = Environment::fixed();
    let failed = |why: &str| NotTried::new(format!("{}: cannot copy: {why}", to.display()));
    from.chunks(PATHS_AT_ONCE).try_for_each(|from| {
        let ended = Program::new("cp", &env)
            .args(["-a", "--reflink=auto"])
            .args(options)
            .args(["-t".as_ref(), to.as_os_str(), "--".as_ref()])
            .args(from)
            .cwd(dir)
            .run()
            .map_err(|error| failed(&error.to_string()))?;
        match ended.success() {
            true => Ok(()),
            false => Err(failed(ended.complaint().lines().last().unwrap_or_default())),
        }
    })
}

/// Returns the entries of a directory; an empty list if it does not exist.
fn entries(dir: &Path) -> Result<Vec<DirEntry>, NotTried> {
    let listed = fs::read_dir(dir).and_then(Iterator::collect);
    match listed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => Ok(other.map_err(FileError::when("list", dir))?),
    }
}

fn kind(entry: &DirEntry) -> Result<FileType, FileError> {
    entry.file_type().map_err(FileError::when("examine", &entry.path()))
}

#[cfg(test)]
mod tests;
