//! The directory of one build, shown to the build's programs at the path that confs name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::{Kernel, Machine};
use crate::names::ModuleId;
use crate::os::durable::{self, FileError};
use crate::os::process::Program;
use crate::os::symlinks;

/// Where a build happens. Its programs know only `seen`; we find the files in `real`, which is
/// another directory where children can have mounts of their own: then one module can be built for
/// several kernels at once, each time at the path that its conf, its scripts and its Makefile name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workplace {
    /// Where the files are.
    pub(crate) real: PathBuf,
    /// Where the build's own programs find them.
    pub(crate) seen: PathBuf,
}

impl Workplace {
    /// The place where a module is built for a kernel; the build sees it as `T/M/V/build`.
    pub(crate) fn of(machine: &Machine, id: &ModuleId, kernel: &Kernel) -> Self {
        let seen = machine.trees.build(id);
        if are_private(machine) {
            let real = machine.trees.workplaces();
            let name = format!("{}-{}-{}", id.source_dir(), kernel.release, machine.arch);
            Self { real: real.join(name), seen }
        } else {
            Self::open(seen)
        }
    }

    /// A directory that all programs see in its place.
    pub(crate) fn open(dir: PathBuf) -> Self {
        Self { real: dir.clone(), seen: dir }
    }

    /// Lets a confined program find the files at `seen`.
    pub(crate) fn show<'p>(&self, program: Program<'p>) -> Program<'p> {
        if self.real == self.seen { program } else { program.shown(&self.real, &self.seen) }
    }

    /// Fills it with what `copy` brings, in place of what a killed build left.
    pub(crate) fn fill(
        &self,
        copy: impl FnOnce(&Path) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        if self.real != self.seen {
            durable::create_dirs(&self.seen)?;
        }
        if let Some(parent) = self.real.parent() {
            durable::create_dirs(parent)?;
        }
        durable::remove_tree(&self.real)?;
        copy(&self.real)
    }

    /// Removes all files of the build.
    pub(crate) fn clear(&self) -> Result<(), FileError> {
        durable::remove_tree(&self.real).map(|_| ())
    }

    /// Leaves the files where dkms users look for those of a failed build. Only one build of a
    /// module at a time may do this.
    pub(crate) fn hand_over(&self) -> Result<(), FileError> {
        if self.real == self.seen {
            return Ok(());
        }
        empty(&self.seen)?;
        for entry in entries(&self.real)? {
            let place = self.seen.join(entry.file_name().unwrap_or_default());
            fs::rename(&entry, &place).map_err(FileError::when("move", &entry))?;
        }
        self.clear()
    }
}

/// Returns true if each build has a directory that only its own programs see.
pub(crate) fn are_private(machine: &Machine) -> bool {
    machine.tools.confinement.has_own_mounts(&machine.tools, &machine.trees.dkms)
}

/// Removes what a failed build left for its user, if its log is gone or if it was one of dkms's.
pub(super) fn forget_left(machine: &Machine, id: &ModuleId) -> Result<(), FileError> {
    let dir = machine.trees.build(id);
    let log = dir.join("make.log");
    let is_gone = log.is_symlink() && symlinks::resolve(&machine.trees.root, &log).is_err();
    // dkms writes its log where it builds; ours is elsewhere, and only linked there.
    let is_of_dkms = log.is_file() && !log.is_symlink() && are_private(machine);
    if is_gone || is_of_dkms { empty(&dir) } else { Ok(()) }
}

/// Removes all that is in a directory. It stays itself: without it, the kernel would unmount what
/// other builds of the module have mounted there.
fn empty(dir: &Path) -> Result<(), FileError> {
    entries(dir)?.iter().try_for_each(|entry| durable::remove_tree(entry).map(|_| ()))
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, FileError> {
    fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(FileError::when("list", dir))
}
