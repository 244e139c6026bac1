//! Decides which of the installed modules are needed to start and use the machine.

use std::collections::BTreeMap;

use dkms_engine::machine::Machine;
use dkms_initramfs::{Generator, modules_in_images};

use crate::critical;
use crate::installed::{InstalledKernel, InstalledModule};

/// The kernel modules that the machine needs.
pub(crate) struct Needs {
    generator: Option<Generator>,
    /// The kernel modules that are in use, each mapped to the reason why the machine needs it.
    in_use: BTreeMap<String, String>,
}

impl Needs {
    pub(crate) fn read(machine: &Machine) -> Self {
        Self {
            generator: Generator::detect(machine),
            in_use: critical::needed(&machine.trees.root),
        }
    }

    /// Returns why the machine needs a module that is installed for `kernel`; `None` if no reason
    /// is known.
    pub(crate) fn reason(
        &self,
        machine: &Machine,
        module: &InstalledModule,
        kernel: &InstalledKernel,
    ) -> Option<String> {
        let named = &machine.settings.preflight.critical;
        if module.names().any(|name| named.contains(&name)) {
            return Some(
                "is listed in [preflight] critical in /etc/dkms/alpm-dkms.toml".to_owned(),
            );
        }
        if let Some(use_) = module.objects.iter().find_map(|object| self.in_use.get(object)) {
            return Some(use_.clone());
        }
        let generator = self.generator.as_ref()?;
        let images = modules_in_images(machine, generator, &kernel.kernel);
        let image = images.iter().find(|(_, held)| !held.is_disjoint(&module.objects));
        image.map(|(image, _)| format!("is in {}", image.display()))
    }
}
