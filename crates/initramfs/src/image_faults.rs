//! Checks that the images of a kernel contain the modules that they need.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use dkms_engine::dkms_tree::Inventory;
use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::names::ModuleId;
use dkms_engine::verify::Fault;

use crate::generators::{Generator, GeneratorCommand};
use crate::image::{Contents, Image, KmodName};
use crate::needed_modules::needed_modules;
use crate::obstacle::{not_mounted, unmounted_boot_dir};

/// The accuracy of file times on the EFI system partition, a FAT file system.
const ROUNDING: Duration = Duration::from_secs(2);

/// Returns true if at least one image of the kernel exists.
#[must_use]
pub fn has_images(machine: &Machine, generator: &Generator, kernel: &Kernel) -> bool {
    let images = generator.images(machine, kernel);
    images.iter().any(|image| image.below(&machine.trees.root).exists())
}

/// Returns the faults of a kernel's existing images: one for each image that contains another
/// kernel, lacks a module that it needs, or contains an outdated object.
///
/// Reads an image only if it may or should contain a dkms module.
#[must_use]
pub fn image_faults(machine: &Machine, generator: &Generator, kernel: &Kernel) -> Vec<Fault> {
    let root = &machine.trees.root;
    let images = generator.images(machine, kernel);
    let check = Check { machine, generator, kernel, placed: placed(machine, kernel) };
    let mut found: Vec<Fault> = images
        .iter()
        .filter(|image| image.below(root).exists())
        .filter_map(|image| check.fault_of(image))
        .collect();
    if images.is_empty()
        && let Some(dir) = unmounted_boot_dir(machine)
    {
        let problem = format!("{}: images cannot be found: {}", kernel.release, not_mounted(&dir));
        let fault = Fault::new(Some(&kernel.release), None, problem);
        found.push(fault.with_advice(format!("run: mount {}", dir.display())));
    }
    found
}

/// A kernel module that dkms has installed for a kernel.
struct PlacedModule {
    name: KmodName,
    id: ModuleId,
    /// The time at which the object was placed.
    since: Option<SystemTime>,
}

fn placed(machine: &Machine, kernel: &Kernel) -> Vec<PlacedModule> {
    let inventory = Inventory::read(&machine.trees, &kernel.release);
    let placed = inventory.on_top().filter_map(|object| {
        Some(PlacedModule {
            name: KmodName::of_file(Path::new(&object.path))?,
            id: object.module.clone(),
            since: object.placed_at(),
        })
    });
    placed.collect()
}

struct Check<'a> {
    machine: &'a Machine,
    generator: &'a Generator,
    kernel: &'a Kernel,
    placed: Vec<PlacedModule>,
}

impl Check<'_> {
    fn fault_of(&self, image: &Image) -> Option<Fault> {
        let root = &self.machine.trees.root;
        if let Some(other) = image.other_kernel(root) {
            let file = image.kernel_file.as_deref().unwrap_or(Path::new("")).display();
            return Some(self.fault(image, None, &format!("{file} belongs to kernel {other}")));
        }
        let file = image.below(root);
        // Other users may not be able to read images.
        let image_file = File::open(&file).ok()?;
        let written = image_file.metadata().and_then(|meta| meta.modified()).ok()? + ROUNDING;
        let newer: Vec<&PlacedModule> =
            self.placed.iter().filter(|it| it.since.is_some_and(|since| since > written)).collect();
        if newer.is_empty() && self.needed(image, &Contents::default()).is_empty() {
            return None;
        }
        let contents = match self.generator.list(&file) {
            Ok(contents) => contents,
            Err(why) => return Some(self.fault(image, None, &why)),
        };
        if !contents.is_for(&self.kernel.release) {
            let kernels: Vec<&str> = contents.kernels.iter().map(|it| it.as_str()).collect();
            return Some(self.fault(image, None, &format!("generated for {}", kernels.join(", "))));
        }
        let needed = self.needed(image, &contents);
        if let Some((module, why)) =
            needed.iter().find(|(module, _)| !contents.modules.contains(&module.name))
        {
            let problem = format!("lacks {}, required by {why}", module.name);
            return Some(self.fault(image, Some(&module.id), &problem));
        }
        let stale = newer.into_iter().find(|it| contents.modules.contains(&it.name))?;
        let problem = format!("contains an outdated copy of {}", stale.name);
        Some(self.fault(image, Some(&stale.id), &problem))
    }

    /// Returns the installed modules that an image with these contents needs, each with the reason.
    fn needed(&self, image: &Image, contents: &Contents) -> Vec<(&PlacedModule, String)> {
        let held: &BTreeSet<KmodName> = &contents.modules;
        let needed = needed_modules(self.machine, self.generator, self.kernel, image, held);
        let mut needed = needed.unwrap_or_default();
        let placed = self.placed.iter();
        placed.filter_map(|module| Some((module, needed.remove(&module.name)?))).collect()
    }

    fn fault(&self, image: &Image, module: Option<&ModuleId>, problem: &str) -> Fault {
        let release = &self.kernel.release;
        let problem = format!("{release}: {}: {problem}", image.path.display());
        let fault = Fault::new(Some(release), module, problem);
        let commands = self.generator.commands(self.machine, self.kernel, &[image]);
        match commands.first().map(GeneratorCommand::line) {
            Some(command) => fault.with_advice(format!("run: {command}")),
            None => fault,
        }
    }
}
