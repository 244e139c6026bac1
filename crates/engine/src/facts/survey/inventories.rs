//! Reads the inventories of the kernels and compares them with the files.

use std::collections::BTreeMap;

use super::Survey;
use crate::dkms_tree::{BuiltObject, Condition, Inventory, Placed, Record, RefusedObject, slot};
use crate::facts::{KernelFacts, ModuleFacts, SourceLink, SourcePlace};
use crate::names::{KernelRelease, ModuleId};
use crate::os::digest::Digest;

impl Survey<'_> {
    /// Reads the inventories of all kernels. Adds the listed modules to `modules`, even those that
    /// the dkms tree does not contain.
    pub(super) fn read_inventories(
        &mut self,
        kernels: &BTreeMap<KernelRelease, KernelFacts>,
        modules: &mut BTreeMap<ModuleId, ModuleFacts>,
    ) {
        for release in kernels.keys() {
            let read = Inventory::read(&self.machine.trees, release);
            let mut inventory = read.clone();
            inventory.examine(self.machine, release);
            for id in inventory.modules() {
                let module = modules.entry(id.clone()).or_insert_with(|| ModuleFacts {
                    source_dir: id.source_dir(),
                    source: SourcePlace::Missing,
                    source_is_absent: self.is_absent(&id.source_dir()),
                    link: SourceLink::None,
                    elsewhere: false,
                    pairs: BTreeMap::new(),
                });
                module.pairs.entry(release.clone()).or_default().placed = true;
            }
            self.inventories.insert(release.clone(), inventory);
            self.recorded.insert(release.clone(), read);
        }
    }

    /// Adds each kernel's inventory to `kernels`, together with the differences between the
    /// inventory and the file that it was read from.
    pub(super) fn add_inventories(&mut self, kernels: &mut BTreeMap<KernelRelease, KernelFacts>) {
        for (release, about) in kernels {
            let Some(inventory) = self.inventories.remove(release) else { continue };
            let Some(read) = self.recorded.remove(release) else { continue };
            about.inventory_changed = inventory != read;
            let is_other = |object: &&Placed| object.condition == Condition::Other;
            let is_known = |object: &Placed| read.own().any(|it| it == object);
            let on_top = inventory.own().filter(|object| inventory.is_on_top(object));
            let replaced = on_top.filter(is_other).filter(|object| !is_known(object));
            about.replaced = replaced.cloned().collect();
            about.inventory = inventory;
        }
    }

    /// Returns true if the kernel's directory contains exactly the objects of a build, without
    /// those in `refused`.
    ///
    /// If the build is `installed` and the inventory lists none of its objects, dkms or an older
    /// alpm-dkms has placed the objects. The function then adds them to the inventory.
    pub(super) fn is_in_place(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        record: &Record,
        refused: &[RefusedObject],
        installed: bool,
    ) -> bool {
        let Some(inventory) = self.inventories.get_mut(kernel) else { return false };
        let is_refused = |it: &BuiltObject| refused.iter().any(|refused| refused.name == it.name);
        let wanted: Vec<&BuiltObject> =
            record.objects.iter().filter(|object| !is_refused(object)).collect();
        let entry =
            |object: &&BuiltObject| Placed::intended(id, &record.arch, object, record.signing);
        if installed && inventory.assume(id, wanted.iter().map(entry)) {
            inventory.examine(self.machine, kernel);
        }
        let listed = |object: &BuiltObject| {
            inventory.of(id).find(|placed| slot(&placed.path) == slot(&object.path()))
        };
        let is_there = |object: &&BuiltObject| {
            listed(object).is_some_and(|placed| {
                let is_below = !inventory.is_on_top(placed);
                placed.digest == object.digest && (is_below || !placed.condition.needs_repair())
            })
        };
        let is_wanted = |placed: &Placed| {
            wanted.iter().any(|object| slot(&placed.path) == slot(&object.path()))
        };
        wanted.iter().all(is_there) && inventory.of(id).all(is_wanted)
    }

    /// Returns true if an object of a build is missing from the dkms tree or damaged.
    pub(super) fn is_damaged(&self, id: &ModuleId, record: &Record) -> bool {
        let dir = self.machine.trees.built(id, &record.kernel, &record.arch).join("module");
        let is_intact = |object: &BuiltObject| {
            Digest::of_file(&dir.join(&object.name)).is_ok_and(|digest| digest == object.digest)
        };
        !record.objects.iter().all(is_intact)
    }
}
