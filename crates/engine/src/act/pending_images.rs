//! What images may hold of what a step changes: noted, for whoever looks after images.

use std::collections::BTreeSet;
use std::path::Path;

use super::installer::Installer;
use crate::dkms_tree::{BuiltObject, PendingWork, PlacedObject};
use crate::installing::BuiltModule;
use crate::names::{KernelRelease, ModuleId};
use crate::objects::ObjectName;
use crate::os::durable::FileError;

impl Installer<'_> {
    /// Notes that these objects of a kernel change: its images may hold them.
    pub(super) fn note_images(
        &self,
        module: &ModuleId,
        kernel: &KernelRelease,
        objects: &BTreeSet<String>,
    ) -> Result<(), FileError> {
        if objects.is_empty() { Ok(()) } else { self.note_images_anyway(module, kernel, objects) }
    }

    /// Notes that a kernel's images are to be looked at although no object of it changes: a module did not build, which
    /// an image may need, and which others may regenerate it without.
    pub(super) fn note_unbuilt(
        &self,
        module: &ModuleId,
        kernel: &KernelRelease,
    ) -> Result<(), FileError> {
        self.note_images_anyway(module, kernel, &BTreeSet::new())
    }

    fn note_images_anyway(
        &self,
        module: &ModuleId,
        kernel: &KernelRelease,
        objects: &BTreeSet<String>,
    ) -> Result<(), FileError> {
        let alive = self.facts.kernels.get(kernel).is_some_and(|about| about.kernel.alive);
        if !self.machine.images || !alive {
            return Ok(());
        }
        self.pending.write(&PendingWork::Image {
            kernel: kernel.clone(),
            module: module.name.clone(),
            objects: objects.clone(),
        })
    }
}

/// The names of the objects that differ once these are placed, where `old` is replaced. None if the
/// same ones stand there already.
pub(super) fn of_install(
    new: &BuiltModule<'_>,
    old: Option<&BuiltModule<'_>>,
    objects: &[BuiltObject],
) -> BTreeSet<String> {
    let dir = new.machine.trees.kernel(new.kernel);
    let before: Vec<PlacedObject> = std::iter::once(new)
        .chain(old)
        .flat_map(BuiltModule::placed)
        .filter(|placed| dir.join(&placed.path).exists())
        .collect();
    let after: Vec<PlacedObject> = objects.iter().map(BuiltObject::in_place).collect();
    let gone = before.iter().filter(|placed| !after.contains(placed));
    let new = after.iter().filter(|placed| !before.contains(placed));
    gone.chain(new).filter_map(name).collect()
}

/// The names of the objects that go when a module is uninstalled.
pub(super) fn of_uninstall(built: &BuiltModule<'_>) -> BTreeSet<String> {
    built.placed().iter().filter_map(name).collect()
}

fn name(placed: &PlacedObject) -> Option<String> {
    let file = Path::new(&placed.path).file_name()?.to_str()?;
    Some(ObjectName::parse(file)?.module)
}
