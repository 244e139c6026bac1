//! Syncs the changes of a run to the disk before its pending work is cleared.
//!
//! While work is pending, a power cut that undoes its changes does no harm, because the next run
//! repeats the work. Most files and directories are therefore synced only here, each once.

use std::path::{Path, PathBuf};

use crate::dkms_tree::{INVENTORY, Inventory, PendingList, Record};
use crate::machine::Machine;
use crate::names::{KernelRelease, ModuleId};
use crate::os::durable::FileError;
use crate::os::unsynced::Unsynced;
use crate::plan::Action;
use crate::report::Report;

/// Syncs all files and directories that the steps in `report` have changed, except the files of
/// depmod, which are already synced.
///
/// # Errors
/// [`FileError`] if a file or directory cannot be synced. The work of the run must then stay
/// pending.
pub(super) fn sync(machine: &Machine, report: &Report) -> Result<(), FileError> {
    let mut changes = Changes { machine, unsynced: Unsynced::default() };
    let actions = || report.finished.iter().map(|finished| &finished.step.action);
    actions().for_each(|action| changes.add(action));
    if actions().any(|it| it.job().is_some() || matches!(it, Action::Uninstall { .. })) {
        PendingList::of(&machine.trees).add_images_to(&mut changes.unsynced);
    }
    changes.unsynced.sync()
}

/// The changes of a run that may not have reached the disk yet.
struct Changes<'a> {
    machine: &'a Machine,
    unsynced: Unsynced,
}

impl Changes<'_> {
    fn add(&mut self, action: &Action) {
        let trees = &self.machine.trees;
        match action {
            Action::Register(module) | Action::UseKept(module) | Action::Deregister(module) => {
                self.unsynced.add_dir(&trees.dkms);
                self.unsynced.add_dir(trees.module(&module.name));
                self.unsynced.add_dir(trees.version(module));
            }
            Action::Build { module, kernel }
            | Action::Adopt { module, kernel, .. }
            | Action::Unbuild(module, kernel) => self.add_build(module, kernel),
            Action::Install { module, kernel, replaces } => {
                self.add_build(module, kernel);
                self.add_objects(module, kernel);
                if let Some(old) = replaces {
                    self.unsynced.add_file(self.record(old, kernel));
                }
            }
            Action::Uninstall { module, kernel, .. } => {
                self.add_build(module, kernel);
                self.unsynced.add_dir(trees.module(&module.name));
                self.add_objects(module, kernel);
            }
            Action::RemoveLeftovers(_) => self.unsynced.add_dir(&trees.install),
            // These steps sync their own changes, or make none.
            Action::ImportSource { .. }
            | Action::Load { .. }
            | Action::Depmod(_)
            | Action::Leave
            | Action::Fail { .. } => {}
        }
    }

    fn record(&self, module: &ModuleId, kernel: &KernelRelease) -> PathBuf {
        Record::path(&self.machine.trees, module, kernel, &self.machine.arch)
    }

    /// Adds a build's record, the build's directory `T/M/V/K/A`, and the version's directory
    /// `T/M/V` to the paths to sync. `T/M/V/K` needs no sync: it is new, and file systems write it
    /// together with its only entry.
    fn add_build(&mut self, module: &ModuleId, kernel: &KernelRelease) {
        let built = self.machine.trees.built(module, kernel, &self.machine.arch);
        self.unsynced.add_file(self.record(module, kernel));
        self.unsynced.add_dir(built);
        self.unsynced.add_dir(self.machine.trees.version(module));
    }

    /// Adds the inventory, the directories of a module's objects in the kernel's directory, and the
    /// directory of the link that marks a version as installed.
    fn add_objects(&mut self, module: &ModuleId, kernel: &KernelRelease) {
        let trees = &self.machine.trees;
        let dir = trees.kernel(kernel);
        // The depmod step syncs `dir`.
        self.unsynced.add_file(dir.join(INVENTORY));
        self.unsynced.add_dir(trees.module(&module.name));
        self.unsynced.add_dir(dir.join(crate::installing::default_location(self.machine)));
        for object in Inventory::read(trees, kernel).of(module) {
            let parent = Path::new(&object.path).parent();
            parent.into_iter().for_each(|parent| self.unsynced.add_dir(dir.join(parent)));
        }
    }
}
