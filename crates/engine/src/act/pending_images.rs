//! Records changed objects as pending work, so that the images that may contain them are checked.

use std::collections::BTreeSet;
use std::path::Path;

use crate::dkms_tree::{BuiltObject, PendingList, PlacedObject};
use crate::facts::Facts;
use crate::installing::BuiltModule;
use crate::machine::Machine;
use crate::names::KernelRelease;
use crate::objects::ObjectName;
use crate::os::durable::{Durability, FileError};

/// Records that `objects` change for `kernel`, so that the images of the kernel are checked.
///
/// Does nothing if alpm-dkms maintains no images or if the kernel is not installed. `objects` is
/// empty if the module failed to build.
///
/// # Errors
/// [`FileError`] if the entry cannot be written.
pub(super) fn note(
    machine: &Machine,
    facts: &Facts,
    kernel: &KernelRelease,
    objects: &BTreeSet<String>,
    durability: Durability,
) -> Result<(), FileError> {
    let alive = facts.kernels.get(kernel).is_some_and(|about| about.kernel.alive);
    if !machine.images || !alive {
        return Ok(());
    }
    PendingList::of(&machine.trees).note_images(kernel, objects, durability)
}

/// Returns the names of the objects that change when `objects` are placed and the version `old` is
/// removed. Empty if identical objects are already installed.
///
/// If an earlier run began to install the module (`is_repeated`), all of them count as changed: a
/// power cut may have kept an object and lost the record for the images.
pub(super) fn of_install(
    new: &BuiltModule<'_>,
    old: Option<&BuiltModule<'_>>,
    objects: &[BuiltObject],
    is_repeated: bool,
) -> BTreeSet<String> {
    let dir = new.machine.trees.kernel(new.kernel);
    let before: Vec<PlacedObject> = std::iter::once(new)
        .chain(old)
        .flat_map(BuiltModule::placed)
        .filter(|placed| dir.join(&placed.path).exists())
        .collect();
    let after: Vec<PlacedObject> = objects.iter().map(BuiltObject::in_place).collect();
    let gone = before.iter().filter(|placed| is_repeated || !after.contains(placed));
    let new = after.iter().filter(|placed| is_repeated || !before.contains(placed));
    gone.chain(new).filter_map(name).collect()
}

/// Returns the names of the objects that are removed when the module is uninstalled.
pub(super) fn of_uninstall(built: &BuiltModule<'_>) -> BTreeSet<String> {
    built.placed().iter().filter_map(name).collect()
}

fn name(placed: &PlacedObject) -> Option<String> {
    let file = Path::new(&placed.path).file_name()?.to_str()?;
    Some(ObjectName::parse(file)?.module)
}
