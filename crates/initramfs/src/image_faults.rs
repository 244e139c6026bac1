//! Checks that the images of a kernel contain the modules that they need.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use dkms_engine::dkms_tree::Inventory;
use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::names::ModuleId;
use dkms_engine::verify::Fault;

use crate::generators::{Generator, GeneratorCommand};
use crate::image::{Contents, Image, ImageKind, KmodName};
use crate::needed_modules::needed_modules;
use crate::obstacle::{not_mounted, unmounted_boot_dir};

/// The accuracy of file times on the EFI system partition, a FAT file system.
const ROUNDING: Duration = Duration::from_secs(2);

/// The directory with the EFI stubs of systemd, below the root.
const STUBS: &str = "usr/lib/systemd/boot/efi";

/// Returns true if at least one image of the kernel exists.
#[must_use]
pub fn has_images(machine: &Machine, generator: &Generator, kernel: &Kernel) -> bool {
    let images = generator.images(machine, kernel);
    images.iter().any(|image| image.below(&machine.trees.root).exists())
}

/// Returns the faults of a kernel's existing images: one for each image that cannot be listed, is
/// for another kernel or boots with one, lacks a module that it needs, or contains an outdated
/// object. Also returns a fault if the images cannot be found.
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

/// Returns true if `written` is the time of an EFI stub of systemd. objcopy, with which mkinitcpio
/// builds unified kernel images unless ukify is installed, gives each image the time of the stub.
fn is_time_of_stub(root: &Path, written: SystemTime) -> bool {
    let stubs = fs::read_dir(root.join(STUBS)).into_iter().flatten().flatten();
    let mut times = stubs.filter_map(|stub| stub.metadata().and_then(|meta| meta.modified()).ok());
    times.any(|time| time <= written + ROUNDING && written <= time + ROUNDING)
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
        // Only root may be able to read the images.
        let image_file = File::open(&file).ok()?;
        let written = image_file.metadata().and_then(|meta| meta.modified()).ok()?;
        let is_known = image.kind != ImageKind::Uki || !is_time_of_stub(root, written);
        let is_newer = |module: &&PlacedModule| {
            module.since.is_some_and(|since| is_known && since > written + ROUNDING)
        };
        let newer: Vec<&PlacedModule> = self.placed.iter().filter(is_newer).collect();
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

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use super::*;

    #[test]
    fn the_time_of_a_stub_says_nothing_about_an_image() {
        let root = TestRoot::new();
        let now = SystemTime::now();
        assert!(!is_time_of_stub(root.path(), now));
        root.write("usr/lib/systemd/boot/efi/linuxx64.efi.stub", "stub");
        let stub = root.at("usr/lib/systemd/boot/efi/linuxx64.efi.stub");
        File::open(stub).unwrap().set_modified(now).unwrap();
        for offset in [Duration::ZERO, ROUNDING] {
            assert!(is_time_of_stub(root.path(), now - offset));
            assert!(is_time_of_stub(root.path(), now + offset));
        }
        assert!(!is_time_of_stub(root.path(), now - Duration::from_secs(60)));
    }
}
