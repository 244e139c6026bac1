//! Regenerates stale images, and restores images that have lost a module or are damaged.

use std::collections::BTreeSet;

use dkms_engine::machine::Machine;
use dkms_engine::os::durable;

use crate::assess::{Assessment, ImageAssessment, KernelAssessment, inspect};
use crate::decide::{CurrentImage, Decision};
use crate::generators::{Generator, GeneratorCommand};
use crate::image::{Image, ImageKind, is_signed};
use crate::kernel_line::{kernel_line, missing_modules};
use crate::snapshot::Snapshot;

/// The free space in bytes that is required in addition to the estimated size of a new image.
const MARGIN: u64 = 1024 * 1024;

impl Assessment<'_> {
    /// Carries out all decisions. Returns true if all images are up to date afterwards.
    ///
    /// Passes each line of output to `say`, with a final line for each kernel. A kernel with errors
    /// stays pending.
    pub(crate) fn regenerate(mut self, machine: &Machine, say: &mut dyn FnMut(&str)) -> bool {
        let mut succeeded = true;
        let releases = self.kernels.iter().map(|it| &it.kernel.release);
        let missing = missing_modules(machine, releases);
        for mut kernel in std::mem::take(&mut self.kernels) {
            let errors = self.regenerate_for(machine, &mut kernel, say);
            errors.iter().for_each(|line| say(line));
            say(&kernel_line(&kernel, &missing));
            if errors.is_empty() {
                self.pending.clear(machine, &kernel.kernel.release);
            }
            succeeded &= errors.is_empty();
            self.kernels.push(kernel);
        }
        // Removed kernels, and all kernels on a machine without images, need no work.
        let assessed: BTreeSet<_> = self.kernels.iter().map(|it| &it.kernel.release).collect();
        for kernel in self.pending.kernels().filter(|kernel| !assessed.contains(kernel)) {
            self.pending.clear(machine, kernel);
        }
        if let Err(error) = Snapshot::delete(machine) {
            log::warn!("{error}");
        }
        succeeded
    }

    /// Carries out the decisions for one kernel. Returns a line for each error.
    fn regenerate_for(
        &mut self,
        machine: &Machine,
        kernel: &mut KernelAssessment,
        say: &mut dyn FnMut(&str),
    ) -> Vec<String> {
        let Some(generator) = self.generator else { return Vec::new() };
        let name = kernel.name();
        let mut errors = Vec::new();
        let mut stale = Vec::new();
        for (index, it) in kernel.images.iter_mut().enumerate() {
            let path = it.image.path.display();
            match &it.decision {
                Decision::UpToDate => {}
                Decision::Keep(why) => {
                    errors.push(format!("error: {name}: {path}: left unchanged: {why}"));
                    it.is_outdated = true;
                }
                Decision::Restore(why) => {
                    let why = why.clone();
                    errors.push(self.restore(machine, generator, it, &name, &why));
                }
                Decision::Regenerate(why) => match lack_of_space(machine, generator, &it.image) {
                    // The generator probably ran out of space earlier and damaged the image.
                    Some(lack) if matches!(it.current, CurrentImage::Unreadable(_)) => {
                        errors.push(self.restore(machine, generator, it, &name, &lack));
                    }
                    Some(lack) => {
                        errors.push(format!("error: {name}: {path}: not regenerated: {lack}"));
                        it.is_outdated = true;
                    }
                    None => {
                        say(&format!("{name}: regenerating {path}: {why}"));
                        stale.push(index);
                    }
                },
            }
        }
        if !stale.is_empty() {
            self.copy_images(machine, kernel);
            errors.extend(self.run_generator(machine, generator, kernel, &stale));
        }
        // Check all images, including those that another hook regenerated: sbctl's own hook does
        // not run when modules change.
        let was_signed =
            |it: &&ImageAssessment| self.snapshot.of(&it.image).is_some_and(|old| old.signed);
        let signed = kernel.images.iter().filter(was_signed);
        errors.extend(signed.filter_map(|it| sign_again(machine, &it.image, &name)));
        errors
    }

    /// Copies all images of a kernel into the snapshot, because a preset also regenerates images
    /// that are not stale.
    ///
    /// Keeps an existing copy if it was made with the current objects installed, or if the image is
    /// now broken.
    fn copy_images(&mut self, machine: &Machine, kernel: &KernelAssessment) {
        let has_same_objects = self.snapshot.has_objects(&kernel.kernel.release, &kernel.modules);
        for ImageAssessment { image, current, .. } in &kernel.images {
            let is_whole = matches!(current, CurrentImage::Holds(_));
            if self.snapshot.of(image).is_none() || (!has_same_objects && is_whole) {
                self.snapshot.add(machine, image);
            }
        }
        // If this run is killed while a generator writes an image, the next run finds the copies.
        if let Err(error) = self.snapshot.write(machine) {
            log::warn!("{error}");
        }
    }

    fn run_generator(
        &self,
        machine: &Machine,
        generator: &Generator,
        kernel: &mut KernelAssessment,
        stale: &[usize],
    ) -> Vec<String> {
        let (name, root) = (kernel.name(), &machine.trees.root);
        let images: Vec<&Image> = stale.iter().map(|index| &kernel.images[*index].image).collect();
        // The administrator's own command may write to another path.
        let writes_here = machine.settings.initramfs.command.is_empty();
        let commands = generator.commands(machine, &kernel.kernel, &images).into_iter();
        let failures: Vec<String> = commands.filter_map(|it| it.run(machine).err()).collect();
        let mut errors: Vec<String> =
            failures.iter().map(|why| format!("error: {name}: {why}")).collect();
        for index in stale {
            let it = &mut kernel.images[*index];
            it.current = inspect(generator, &it.image.below(root));
            let old = self.snapshot.of(&it.image);
            let was_not_written = || old.is_some_and(|old| old.is_untouched(&it.image, root));
            let why = match &it.current {
                CurrentImage::Holds(_)
                    if failures.is_empty() && writes_here && was_not_written() =>
                {
                    Some("the generator did not change it".to_owned())
                }
                CurrentImage::Holds(_) if failures.is_empty() => None,
                CurrentImage::Holds(_) => Some("the generator failed".to_owned()),
                // An unknown generator may use another file name.
                CurrentImage::Missing if generator.is_unknown() && failures.is_empty() => None,
                CurrentImage::Missing => Some("the generator did not create it".to_owned()),
                CurrentImage::Unreadable(why) => Some(why.clone()),
            };
            if let Some(why) = why {
                errors.push(self.restore(machine, generator, it, &name, &why));
            }
        }
        errors
    }

    /// Restores an image from its copy if the copy's kernel is still installed. Returns an error
    /// line with the reason `why` and the outcome.
    fn restore(
        &self,
        machine: &Machine,
        generator: &Generator,
        it: &mut ImageAssessment,
        name: &str,
        why: &str,
    ) -> String {
        it.is_outdated = true;
        let error = format!("error: {name}: {}: {why}", it.image.path.display());
        let old = self.snapshot.of(&it.image).and_then(|old| Some((old, old.copy.as_ref()?)));
        let Some((old, copy)) = old else {
            return format!("{error}; no copy to restore");
        };
        let boots = |kernels: &BTreeSet<_>| {
            kernels.is_empty() || kernels.iter().any(|kernel| self.installed.contains(kernel))
        };
        let contents = generator.list(copy).ok();
        let Some(contents) = contents.filter(|contents| boots(&contents.kernels)) else {
            return format!(
                "{error}; not restored: the kernel of the previous image is no longer installed"
            );
        };
        match old.restore(&it.image, &machine.trees.root) {
            Ok(()) => {
                it.current = CurrentImage::Holds(contents);
                format!("{error}; restored the previous image")
            }
            Err(failure) => format!("{error}; cannot restore the previous image: {failure}"),
        }
    }
}

/// Returns an error line if there is too little space to regenerate an image, otherwise `None`. A
/// truncated image is worse than a stale one.
fn lack_of_space(machine: &Machine, generator: &Generator, image: &Image) -> Option<String> {
    let file = image.below(&machine.trees.root);
    let dir = file.parent()?;
    let old = file.metadata().map_or(0, |meta| meta.len());
    // mkinitcpio overwrites the old image. The other generators first write a new file beside it.
    let needed = if generator.is_mkinitcpio() { old / 20 } else { old } + MARGIN;
    let space = durable::room(dir).filter(|space| *space < needed)?;
    let dir = image.path.parent()?.display();
    let (space, needed) = (space / 1024, needed / 1024);
    Some(format!("not enough space in {dir}: {space} KiB free, {needed} KiB needed"))
}

/// Signs a unified kernel image that has lost its signature. Returns an error line if the image is
/// still unsigned, otherwise `None`.
fn sign_again(machine: &Machine, image: &Image, name: &str) -> Option<String> {
    let file = image.below(&machine.trees.root);
    if image.kind != ImageKind::Uki || is_signed(&file) {
        return None;
    }
    let command = machine.settings.initramfs.sign.split_whitespace();
    let command = GeneratorCommand::new(&command.collect::<Vec<_>>());
    let ran = command.run(machine);
    if is_signed(&file) {
        return None;
    }
    let why = ran.err().map(|why| format!(" ({why})")).unwrap_or_default();
    let path = image.path.display();
    Some(format!(
        "error: {name}: {path}: no longer signed{why}; will not boot with Secure Boot enabled; run: {}",
        command.line()
    ))
}
