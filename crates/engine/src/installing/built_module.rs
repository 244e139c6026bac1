//! A module built for a kernel: its record, read once for a whole installation or removal.

use std::cell::OnceCell;
use std::fs;
use std::path::PathBuf;

use crate::dkms_tree::{BuiltObject, PlacedObject, Record, TreeState};
use crate::installing::location;
use crate::machine::{Kernel, Machine};
use crate::names::{KernelRelease, ModuleId};
use crate::objects::ObjectName;
use crate::os::digest::Digest;
use crate::os::durable::FileError;

/// What is built of a module for a kernel, and what the kernel's directory holds of it.
pub(crate) struct BuiltModule<'a> {
    pub machine: &'a Machine,
    pub id: &'a ModuleId,
    pub kernel: &'a KernelRelease,
    /// Where its record is, if it has one.
    path: PathBuf,
    /// `None` if dkms built it.
    record: Option<Record>,
    /// What `module/` holds, if there is no record.
    stored: OnceCell<Vec<BuiltObject>>,
    /// What other modules have placed for this kernel.
    others: OnceCell<Vec<PlacedObject>>,
}

impl<'a> BuiltModule<'a> {
    /// Reads the record, if there is one. The module need not be built.
    pub(crate) fn read(machine: &'a Machine, id: &'a ModuleId, kernel: &'a KernelRelease) -> Self {
        let record = Record::read(&Record::path(&machine.trees, id, kernel, &machine.arch));
        Self::of(machine, id, kernel, record)
    }

    /// Returns the module whose record was just read or written; `None` if dkms built it.
    pub(crate) fn of(
        machine: &'a Machine,
        id: &'a ModuleId,
        kernel: &'a KernelRelease,
        record: Option<Record>,
    ) -> Self {
        let path = Record::path(&machine.trees, id, kernel, &machine.arch);
        let (stored, others) = (OnceCell::new(), OnceCell::new());
        Self { machine, id, kernel, path, record, stored, others }
    }

    /// Its record; none if dkms built it.
    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// The directory that its objects are stored in.
    pub(crate) fn dir(&self) -> PathBuf {
        self.machine.trees.built(self.id, self.kernel, &self.machine.arch).join("module")
    }

    /// The stored objects: as recorded, or what dkms left.
    pub(crate) fn objects(&self) -> &[BuiltObject] {
        match &self.record {
            Some(record) => &record.objects,
            None => self.stored.get_or_init(|| self.stored()),
        }
    }

    fn stored(&self) -> Vec<BuiltObject> {
        let location = location::usual(self.machine).to_string_lossy().into_owned();
        let Ok(entries) = fs::read_dir(self.dir()) else { return Vec::new() };
        let mut objects: Vec<BuiltObject> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                ObjectName::parse(&name)?;
                let digest = Digest::of_file(&entry.path()).ok()?;
                Some(BuiltObject { name, digest, location: location.clone() })
            })
            .collect();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        objects
    }

    /// What it has in the kernel's directory: as recorded, or what dkms would have placed.
    pub(crate) fn placed(&self) -> Vec<PlacedObject> {
        match &self.record {
            Some(record) => record.placed.clone(),
            None => self.objects().iter().map(BuiltObject::in_place).collect(),
        }
    }

    /// What other modules and versions have in the kernel's directory: two packages may bring the
    /// same object, and the one that goes first must not take it from the other.
    pub(crate) fn placed_by_others(&self) -> &[PlacedObject] {
        self.others.get_or_init(|| {
            let trees = &self.machine.trees;
            let state = TreeState::read(trees);
            let others = state.modules.iter().map(|added| &added.id);
            others
                .filter(|other| *other != self.id)
                .filter_map(|other| {
                    Record::read(&Record::path(trees, other, self.kernel, &self.machine.arch))
                })
                .flat_map(|record| record.placed)
                .collect()
        })
    }

    /// Records what stands in the kernel's directory.
    ///
    /// # Errors
    /// [`FileError`] if the record cannot be written.
    pub(crate) fn note_placed(&mut self, placed: &[PlacedObject]) -> Result<(), FileError> {
        self.change(|record| record.placed = placed.to_vec())
    }

    /// Records where the objects go now: the distribution or its settings may have changed
    /// since they were built.
    ///
    /// # Errors
    /// [`FileError`] if the record cannot be written.
    pub(crate) fn relocate(&mut self, kernel: &Kernel) -> Result<(), FileError> {
        let (machine, id) = (self.machine, self.id);
        self.change(|record| {
            location::locate_by_conf(machine, id, kernel, &record.values, &mut record.objects);
        })
    }

    /// Changes the record, and writes it if it differs.
    ///
    /// # Errors
    /// [`FileError`] if it cannot be written.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), FileError> {
        let Some(record) = &mut self.record else { return Ok(()) };
        let before = record.clone();
        change(record);
        if *record == before { Ok(()) } else { record.write(&self.path) }
    }
}
