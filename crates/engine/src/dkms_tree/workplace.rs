//! Gives each build its own directory, which the build's programs find at the path that dkms.conf
//! names.

use std::fs;
use std::path::{Path, PathBuf};

use super::temporary;
use crate::machine::{Kernel, Machine, RUNNING_KERNEL, running_release};
use crate::names::ModuleId;
use crate::os::durable::{self, FileError};
use crate::os::process::{OwnMounts, OwnTemporary, Program};
use crate::os::symlinks;

/// The directory of one build, and the other files that only the build's programs see.
///
/// The engine uses the path `real`, and the programs of the build use the path `seen`. If child
/// processes can have private mounts, the two paths differ, and a module can be built for several
/// kernels at once, although its dkms.conf and Makefile always name the same build directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workplace {
    /// The path of the directory on disk.
    pub(crate) real: PathBuf,
    /// The path at which the build's programs find the directory.
    pub(crate) seen: PathBuf,
    /// The directories for temporary files that only the build's programs see.
    temporary: Vec<OwnTemporary>,
    /// Whether the module is built for a kernel that is not running.
    is_for_another_kernel: bool,
}

impl Workplace {
    /// Returns the workplace for building a module for a kernel. Its `seen` path is `T/M/V/build`.
    pub(crate) fn of(machine: &Machine, id: &ModuleId, kernel: &Kernel) -> Self {
        let seen = machine.trees.build(id);
        if !machine.has_own_mounts() {
            return Self::open(seen);
        }
        let name = format!("{}-{}-{}", id.source_dir(), kernel.release, machine.arch);
        let real = machine.trees.workplaces().join(name);
        Self {
            temporary: temporary::of_build(machine, id, kernel, &temporary_dir(&real)),
            is_for_another_kernel: running_release().as_ref() != Some(&kernel.release),
            real,
            seen,
        }
    }

    /// Returns a workplace whose `real` and `seen` paths are both `dir`.
    pub(crate) fn open(dir: PathBuf) -> Self {
        Self { real: dir.clone(), seen: dir, temporary: Vec::new(), is_for_another_kernel: false }
    }

    /// Returns the workplace with the machine's directories for temporary files instead of the
    /// build's own.
    pub(crate) fn with_machine_temporary(self) -> Self {
        Self { temporary: Vec::new(), ..self }
    }

    /// Returns `program` with the mounts of the build, among them the directory at `seen`. The
    /// program must be confined.
    pub(crate) fn show<'p>(&self, program: Program<'p>) -> Program<'p> {
        if self.real == self.seen {
            return program;
        }
        let masked = RUNNING_KERNEL.iter().filter(|_| self.is_for_another_kernel);
        program.mounts(OwnMounts {
            dir: Some((self.real.clone(), self.seen.clone())),
            temporary: self.temporary.clone(),
            masked: masked.map(PathBuf::from).collect(),
        })
    }

    /// Returns true if the build's programs do not see the files of [`RUNNING_KERNEL`].
    pub(crate) fn hides_running_kernel(&self) -> bool {
        self.is_for_another_kernel
    }

    /// Removes the directory if a killed build left it behind, then calls `copy` to create it.
    pub(crate) fn fill<T>(
        &self,
        copy: impl FnOnce(&Path) -> Result<T, FileError>,
    ) -> Result<T, FileError> {
        if self.real != self.seen {
            durable::create_dirs(&self.seen)?;
        }
        if let Some(parent) = self.real.parent() {
            durable::create_dirs(parent)?;
        }
        self.clear()?;
        temporary::create(&temporary_dir(&self.real), &self.temporary)?;
        copy(&self.real)
    }

    /// Removes the directory with all its files.
    pub(crate) fn clear(&self) -> Result<(), FileError> {
        if self.real != self.seen {
            durable::remove_tree(&temporary_dir(&self.real))?;
        }
        durable::remove_tree(&self.real).map(|_| ())
    }

    /// Moves the files of a failed build to the module's usual build directory (`self.seen`), where
    /// users of dkms expect them.
    ///
    /// Two builds of the same module must not do this at the same time.
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

/// Returns the directory, beside the build directory `real`, that contains the directories for
/// temporary files.
fn temporary_dir(real: &Path) -> PathBuf {
    real.with_file_name(format!("{}.tmp", real.file_name().unwrap_or_default().display()))
}

/// Empties `T/M/V/build` if it contains a failed build that dkms made, or a failed build whose log
/// has been deleted.
pub(super) fn remove_failed_build(machine: &Machine, id: &ModuleId) -> Result<(), FileError> {
    let dir = machine.trees.build(id);
    let log = dir.join("make.log");
    let log_is_gone = log.is_symlink() && symlinks::resolve(&machine.trees.root, &log).is_err();
    // dkms writes its log into the build directory; alpm-dkms only places a link there.
    let is_from_dkms = log.is_file() && !log.is_symlink() && machine.has_own_mounts();
    if log_is_gone || is_from_dkms { empty(&dir) } else { Ok(()) }
}

/// Removes all entries of a directory, but not the directory itself.
///
/// Other builds of the module may have mounted their own directories over this one. If this
/// directory were removed, Linux would unmount them.
fn empty(dir: &Path) -> Result<(), FileError> {
    entries(dir)?.iter().try_for_each(|entry| durable::remove_tree(entry).map(|_| ()))
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, FileError> {
    fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(FileError::when("list", dir))
}
