//! The objects of one module for one kernel. Their record is read once per installation or removal.

use std::cell::OnceCell;
use std::fs;
use std::path::PathBuf;

use crate::dkms_tree::{BuiltObject, Inventory, Placed, Record};
use crate::installing::location;
use crate::installing::uninstall::is_installed;
use crate::machine::{Kernel, Machine};
use crate::names::{KernelRelease, ModuleId};
use crate::objects::ObjectName;
use crate::os::digest::Digest;
use crate::os::durable::{Durability, FileError};

/// The build of a module for a kernel.
pub(crate) struct BuiltModule<'a> {
    pub machine: &'a Machine,
    pub id: &'a ModuleId,
    pub kernel: &'a KernelRelease,
    /// The path of the record. The file need not exist.
    path: PathBuf,
    /// The record of the build; `None` if dkms built the module, or if the module is not built.
    record: Option<Record>,
    /// The objects in the directory `module/`; only read if there is no record.
    stored: OnceCell<Vec<BuiltObject>>,
}

impl<'a> BuiltModule<'a> {
    /// Reads the record of a module for a kernel, if it exists. The module need not be built.
    pub(crate) fn read(machine: &'a Machine, id: &'a ModuleId, kernel: &'a KernelRelease) -> Self {
        let record = Record::read(&Record::path(&machine.trees, id, kernel, &machine.arch));
        Self::of(machine, id, kernel, record)
    }

    /// Returns a module whose record the caller has already read or written. `record` is `None` if
    /// dkms built the module.
    pub(crate) fn of(
        machine: &'a Machine,
        id: &'a ModuleId,
        kernel: &'a KernelRelease,
        record: Option<Record>,
    ) -> Self {
        let path = Record::path(&machine.trees, id, kernel, &machine.arch);
        Self { machine, id, kernel, path, record, stored: OnceCell::new() }
    }

    /// Returns the record of the build; `None` if dkms built the module, or if the module is not
    /// built.
    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Returns the directory `module/`, which contains the stored objects.
    pub(crate) fn dir(&self) -> PathBuf {
        self.machine.trees.built(self.id, self.kernel, &self.machine.arch).join("module")
    }

    /// Returns the stored objects, as listed in the record. Without a record, returns the objects
    /// in the directory `module/`.
    pub(crate) fn objects(&self) -> &[BuiltObject] {
        match &self.record {
            Some(record) => &record.objects,
            None => self.stored.get_or_init(|| self.stored()),
        }
    }

    fn stored(&self) -> Vec<BuiltObject> {
        let location = location::default_location(self.machine).to_string_lossy().into_owned();
        let Ok(entries) = fs::read_dir(self.dir()) else { return Vec::new() };
        let mut objects: Vec<BuiltObject> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                ObjectName::parse(&name)?;
                let digest = Digest::of_file(&entry.path()).ok()?;
                Some(BuiltObject { name, digest, location: location.clone(), built_for: None })
            })
            .collect();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        objects
    }

    /// Returns the inventory of the kernel. If the module is installed but the inventory lists none
    /// of its objects, dkms or an older alpm-dkms has installed the module. In this case, the
    /// returned inventory lists the objects of the build.
    pub(crate) fn inventory(&self) -> Inventory {
        let mut inventory = Inventory::read(&self.machine.trees, self.kernel);
        self.assume(&mut inventory);
        inventory
    }

    /// Adds the objects of the build to `inventory` if the module is installed and the inventory
    /// lists no object of any version of this module.
    pub(crate) fn assume(&self, inventory: &mut Inventory) {
        if is_installed(self.machine, self.id, self.kernel) {
            inventory.assume(self.id, self.objects().iter().map(|object| self.entry(object)));
        }
    }

    /// Returns the inventory entry for `object`.
    pub(crate) fn entry(&self, object: &BuiltObject) -> Placed {
        let signer = self.record().and_then(|record| record.signing);
        Placed::intended(self.id, &self.machine.arch, object, signer)
    }

    /// Updates the recorded location of each object. The distribution or its settings may have
    /// changed since the build.
    ///
    /// # Errors
    /// [`FileError`] if the record cannot be written.
    pub(crate) fn relocate(&mut self, kernel: &Kernel) -> Result<(), FileError> {
        let (machine, id) = (self.machine, self.id);
        self.change(|record| {
            location::locate_by_conf(machine, id, kernel, &record.values, &mut record.objects);
        })
    }

    /// Applies `change` to the record, and writes the record if it has changed. Does nothing if
    /// there is no record. The run syncs the record at its end, before it clears the pending work.
    ///
    /// # Errors
    /// [`FileError`] if the record cannot be written.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), FileError> {
        let Some(record) = &mut self.record else { return Ok(()) };
        let before = record.clone();
        change(record);
        if *record == before {
            return Ok(());
        }
        record.write_with(&self.path, Durability::None)
    }
}
