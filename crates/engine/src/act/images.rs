//! What images may hold of what a step changes: noted, for whoever looks after images.

use std::collections::BTreeSet;
use std::path::Path;

use super::Run;
use crate::debts::Debt;
use crate::durable::FileError;
use crate::names::{KernelRelease, ModuleId};
use crate::object::ObjectName;
use crate::place;
use crate::record::{Object, Placed};
use crate::site::Site;

impl Run<'_> {
    /// Notes that these objects of a kernel change: its images may hold them.
    pub(super) fn owe_images(
        &self,
        module: &ModuleId,
        kernel: &KernelRelease,
        objects: &BTreeSet<String>,
    ) -> Result<(), FileError> {
        if objects.is_empty() { Ok(()) } else { self.owe_images_anyway(module, kernel, objects) }
    }

    /// Notes that a kernel's images are to be looked at although no object of it changes: a module did not build, which
    /// an image may need, and which others may regenerate it without.
    pub(super) fn owe_look(
        &self,
        module: &ModuleId,
        kernel: &KernelRelease,
    ) -> Result<(), FileError> {
        self.owe_images_anyway(module, kernel, &BTreeSet::new())
    }

    fn owe_images_anyway(
        &self,
        module: &ModuleId,
        kernel: &KernelRelease,
        objects: &BTreeSet<String>,
    ) -> Result<(), FileError> {
        let alive = self.facts.kernels.get(kernel).is_some_and(|about| about.kernel.alive);
        if !self.site.images || !alive {
            return Ok(());
        }
        self.debts.write(&Debt::Image {
            kernel: kernel.clone(),
            module: module.name.clone(),
            objects: objects.clone(),
        })
    }
}

/// The names of the objects that differ once these of a module are placed, in the place of the
/// version that it `replaces`. None if the same ones stand there already.
pub(super) fn of_install(
    site: &Site,
    kernel: &KernelRelease,
    module: &ModuleId,
    replaces: Option<&ModuleId>,
    objects: &[Object],
) -> BTreeSet<String> {
    let dir = site.trees.kernel(kernel);
    let versions = std::iter::once(module).chain(replaces);
    let before: Vec<Placed> = versions
        .flat_map(|version| place::placed(site, version, kernel))
        .filter(|placed| dir.join(&placed.path).exists())
        .collect();
    let after: Vec<Placed> = objects.iter().map(Object::in_place).collect();
    let gone = before.iter().filter(|placed| !after.contains(placed));
    let new = after.iter().filter(|placed| !before.contains(placed));
    gone.chain(new).filter_map(name).collect()
}

/// The names of the objects that go when a module is uninstalled.
pub(super) fn of_uninstall(
    site: &Site,
    kernel: &KernelRelease,
    module: &ModuleId,
) -> BTreeSet<String> {
    place::placed(site, module, kernel).iter().filter_map(name).collect()
}

fn name(placed: &Placed) -> Option<String> {
    let file = Path::new(&placed.path).file_name()?.to_str()?;
    Some(ObjectName::parse(file)?.module)
}
