//! Regenerates stale images, and restores those that became worse.

use std::collections::BTreeSet;

use dkms_engine::machine::Machine;
use dkms_engine::os::durable;

use crate::assess::{Assessment, ImageAssessment, KernelAssessment, inspect};
use crate::decide::{CurrentImage, Decision};
use crate::generators::{Generator, GeneratorCommand};
use crate::image::{Image, ImageKind, is_signed};
use crate::kernel_line::kernel_line;
use crate::snapshot::Snapshot;

/// The space in bytes that a generator needs beyond that of the old image.
const MARGIN: u64 = 1024 * 1024;

impl Assessment<'_> {
    /// Regenerates stale images, restores those that became worse, and ends with a line on each kernel. Returns true if
    /// all images are up to date. Work that is not done stays pending.
    pub(crate) fn regenerate(mut self, machine: &Machine, say: &mut dyn FnMut(&str)) -> bool {
        let mut succeeded = true;
        for mut kernel in std::mem::take(&mut self.kernels) {
            let errors = self.regenerate_for(machine, &mut kernel, say);
            errors.iter().for_each(|line| say(line));
            say(&kernel_line(&kernel));
            if errors.is_empty() {
                self.pending.clear(machine, &kernel.kernel.release);
            }
            succeeded &= errors.is_empty();
            self.kernels.push(kernel);
        }
        // Kernels that are gone and machines without images need nothing.
        let assessed: BTreeSet<_> = self.kernels.iter().map(|it| &it.kernel.release).collect();
        for kernel in self.pending.kernels().filter(|kernel| !assessed.contains(kernel)) {
            self.pending.clear(machine, kernel);
        }
        if let Err(error) = Snapshot::delete(machine) {
            log::warn!("{error}");
        }
        succeeded
    }

    /// Does the same for one kernel. Returns an error line for each image that is not up to date afterwards.
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
                    // Its generator ran out of space before, and has spoilt it.
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
        // Whichever program made them: ZZ-sbctl does not look at modules.
        let was_signed =
            |it: &&ImageAssessment| self.snapshot.of(&it.image).is_some_and(|old| old.signed);
        let signed = kernel.images.iter().filter(was_signed);
        errors.extend(signed.filter_map(|it| sign_again(machine, &it.image, &name)));
        errors
    }

    /// Copies all images of the kernel, since a preset also regenerates those that are not stale. A copy that was taken
    /// after the objects were placed stays, and so does the copy of an image that is broken now.
    fn copy_images(&mut self, machine: &Machine, kernel: &KernelAssessment) {
        let has_same_objects = self.snapshot.has_objects(&kernel.kernel.release, &kernel.modules);
        for ImageAssessment { image, current, .. } in &kernel.images {
            let is_whole = matches!(current, CurrentImage::Holds(_));
            if self.snapshot.of(image).is_none() || (!has_same_objects && is_whole) {
                self.snapshot.add(machine, image);
            }
        }
        // If this run is killed while a generator writes, the next one finds the copies.
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
        // The administrator's own command may write elsewhere.
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
                    Some("its generator did not change it".to_owned())
                }
                CurrentImage::Holds(_) if failures.is_empty() => None,
                CurrentImage::Holds(_) => Some("its generator failed".to_owned()),
                // An unknown generator may use other names.
                CurrentImage::Missing if generator.is_unknown() && failures.is_empty() => None,
                CurrentImage::Missing => Some("its generator did not create it".to_owned()),
                CurrentImage::Unreadable(why) => Some(why.clone()),
            };
            if let Some(why) = why {
                errors.push(self.restore(machine, generator, it, &name, &why));
            }
        }
        errors
    }

    /// Restores an image from its copy if the kernel in it is still installed. Returns the error line.
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
            return format!("{error}; there is no copy to restore");
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

/// Returns how much space is lacking, if any. Half an image is worse than an old one.
fn lack_of_space(machine: &Machine, generator: &Generator, image: &Image) -> Option<String> {
    let file = image.below(&machine.trees.root);
    let dir = file.parent()?;
    let old = file.metadata().map_or(0, |meta| meta.len());
    // mkinitcpio overwrites the old image; the others write a file beside it.
    let needed = if generator.is_mkinitcpio() { old / 20 } else { old } + MARGIN;
    let space = durable::room(dir).filter(|space| *space < needed)?;
    let dir = image.path.parent()?.display();
    let (space, needed) = (space / 1024, needed / 1024);
    Some(format!("not enough space in {dir}: {space} KiB free, {needed} KiB needed"))
}

/// Signs a unified kernel image again that lost its signature. Returns an error line on failure.
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
