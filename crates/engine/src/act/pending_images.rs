//! Records changed objects as pending work, so that the images that may contain them are checked.

use std::collections::{BTreeSet, HashSet};

use crate::dkms_tree::{BuiltObject, Inventory, NotedImages, PendingList};
use crate::facts::Facts;
use crate::installing::{BuiltModule, Choice};
use crate::machine::Machine;
use crate::names::KernelRelease;
use crate::objects::ObjectName;
use crate::os::digest::Digest;
use crate::os::durable::{Durability, FileError};

/// Records that `objects` change for `kernel`, so that the images of the kernel are checked.
///
/// Returns the entry. Does nothing and returns `None` if alpm-dkms maintains no images or if the
/// kernel is not installed. `objects` is empty if the module failed to build.
///
/// # Errors
/// [`FileError`] if the entry cannot be written.
pub(super) fn note(
    machine: &Machine,
    facts: &Facts,
    kernel: &KernelRelease,
    objects: &BTreeSet<String>,
    durability: Durability,
) -> Result<Option<NotedImages>, FileError> {
    let alive = facts.kernels.get(kernel).is_some_and(|about| about.kernel.alive);
    if !machine.images || !alive {
        return Ok(None);
    }
    PendingList::of(&machine.trees).note_images(kernel, objects, durability).map(Some)
}

/// Returns the names of the objects that an installation changes by placing the chosen objects and
/// removing the module's other objects. Empty if identical objects are already installed.
///
/// If an earlier run began to install the module (`is_repeated`), all these objects count as
/// changed, because after a power cut, an object may be on disk although the record for the images
/// is lost.
pub(super) fn of_install(
    new: &BuiltModule<'_>,
    inventory: &Inventory,
    chosen: &[(BuiltObject, Choice)],
    is_repeated: bool,
) -> BTreeSet<String> {
    let before: HashSet<(String, Digest)> = inventory
        .on_top()
        .filter(|placed| placed.module.name == new.id.name)
        .filter(|placed| inventory.dir().join(&placed.path).exists())
        .map(|placed| (placed.path.clone(), placed.digest))
        .collect();
    let stays = |choice: &Choice| matches!(choice, Choice::Place | Choice::Keep);
    let after: HashSet<(String, Digest)> = chosen
        .iter()
        .filter(|(_, choice)| stays(choice))
        .map(|(object, _)| (object.path(), object.digest))
        .collect();
    let both = before.union(&after);
    let is_changed =
        |it: &(String, Digest)| is_repeated || !(before.contains(it) && after.contains(it));
    both.filter(|it| is_changed(it)).filter_map(|(path, _)| name(path)).collect()
}

/// Returns the names of the objects that are removed when the module is uninstalled.
pub(super) fn of_uninstall(built: &BuiltModule<'_>) -> BTreeSet<String> {
    let inventory = built.inventory();
    inventory.of(built.id).filter_map(|placed| name(&placed.path)).collect()
}

fn name(path: &str) -> Option<String> {
    Some(ObjectName::parse(path.rsplit('/').next()?)?.module)
}
