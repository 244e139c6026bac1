//! The modules that are installed before a transaction.

use std::collections::{BTreeMap, BTreeSet};

use dkms_engine::dkms_tree::{Inventory, Record, TreeState};
use dkms_engine::failure::Failure;
use dkms_engine::machine::{Kernel, Kernels, Machine};
use dkms_engine::names::{ModuleId, ModuleName};
use dkms_engine::objects::ObjectName;
use serde::{Deserialize, Serialize};

/// A kernel with its installed modules.
#[derive(Debug, Clone)]
pub(crate) struct InstalledKernel {
    pub(crate) kernel: Kernel,
    pub(crate) modules: BTreeMap<ModuleName, InstalledModule>,
}

/// A module that is installed for a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstalledModule {
    pub(crate) id: ModuleId,
    /// The names of the kernel modules, with `_` for `-`.
    pub(crate) objects: BTreeSet<String>,
}

impl InstalledModule {
    /// Returns the names that `[preflight] critical` may use for this module. In the names, `_`
    /// replaces `-`.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let own = self.id.name.as_str().replace('-', "_");
        self.objects.iter().cloned().chain([own])
    }
}

/// Reads the kernels of the machine and their installed modules.
pub(crate) fn read(machine: &Machine) -> Result<Vec<InstalledKernel>, Failure> {
    let state = TreeState::read(&machine.trees);
    let kernels = Kernels::read(&machine.trees)?.all.into_iter().filter(|kernel| kernel.alive);
    Ok(kernels.map(|kernel| InstalledKernel::read(machine, &state, kernel)).collect())
}

impl InstalledKernel {
    fn read(machine: &Machine, state: &TreeState, kernel: Kernel) -> Self {
        let (trees, arch) = (&machine.trees, &machine.arch);
        let inventory = Inventory::read(trees, &kernel.release);
        let mut modules = BTreeMap::new();
        for added in &state.modules {
            let id = &added.id;
            if state.installed_version(&id.name, &kernel.release, arch) != Some(&id.version) {
                continue;
            }
            let record = Record::read(&Record::path(trees, id, &kernel.release, arch));
            let built = record.iter().flat_map(|it| &it.objects).map(|it| it.name.as_str());
            let placed = inventory.of(id).filter_map(|object| object.path.rsplit('/').next());
            let names =
                built.chain(placed).filter_map(|file| Some(ObjectName::parse(file)?.module));
            let mut objects: BTreeSet<String> = names.map(|name| name.replace('-', "_")).collect();
            if objects.is_empty() {
                // A build made by the original dkms has no record. Most modules have a single
                // object with the module's name.
                objects.insert(id.name.as_str().replace('-', "_"));
            }
            modules.insert(id.name.clone(), InstalledModule { id: id.clone(), objects });
        }
        Self { kernel, modules }
    }
}
