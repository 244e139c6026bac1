//! Regenerates stale images, and judges each new image by its contents.

use std::collections::{BTreeMap, BTreeSet};

use dkms_engine::machine::Machine;

use crate::assess::{Assessment, ImageAssessment, KernelAssessment, earlier, inspect};
use crate::decide::{CurrentImage, Decision, lacking};
use crate::generators::{Generator, GeneratorCommand, GeneratorFailure};
use crate::image::{Image, ImageKind, KmodName, is_signed};
use crate::kernel_line::{kernel_line, missing_modules};
use crate::restore::not_regenerated;

impl Assessment<'_> {
    /// Carries out all decisions. Returns true if all images are up to date afterwards.
    ///
    /// Passes each line of output to `say`, with a final line for each kernel. A kernel with errors
    /// stays pending. After a signal to stop, starts no other generator.
    pub(crate) fn regenerate(mut self, machine: &Machine, say: &mut dyn FnMut(&str)) -> bool {
        let mut succeeded = true;
        let releases = self.kernels.iter().map(|it| &it.kernel.release);
        let missing = missing_modules(machine, releases);
        for mut kernel in std::mem::take(&mut self.kernels) {
            let errors = self.regenerate_for(machine, &mut kernel, say);
            errors.iter().for_each(|line| say(line));
            say(&kernel_line(&kernel, &missing));
            let is_done = errors.is_empty() && !kernel.images.iter().any(|it| it.is_unchecked());
            if is_done {
                self.pending.clear(machine, &kernel.kernel.release);
            }
            // The next kernel's images may need the space.
            self.delete_needless_copies(machine, &kernel, is_done);
            succeeded &= errors.is_empty();
            self.kernels.push(kernel);
        }
        // Removed kernels, and all kernels on a machine without images, need no work.
        let assessed: BTreeSet<_> = self.kernels.iter().map(|it| &it.kernel.release).collect();
        for kernel in self.pending.kernels().filter(|kernel| !assessed.contains(kernel)) {
            self.pending.clear(machine, kernel);
        }
        if let Err(error) = self.snapshot.write(machine) {
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
        let hidden = kernel.hidden().map(|why| kernel.hidden_report(&why)).into_iter();
        let kept = kernel.images.iter().filter(|it| matches!(it.decision, Decision::Keep(_)));
        let kept = kept.filter_map(|it| kernel.report(it));
        let mut errors: Vec<String> =
            hidden.chain(kept).map(|image| format!("error: {image}")).collect();
        let unchecked = kernel.images.iter().filter(|it| it.is_unchecked());
        for image in unchecked.filter_map(|it| kernel.report(it)) {
            say(&format!("note: {image}"));
        }
        let (mut stale, mut faults) = (Vec::new(), Vec::new());
        for (index, it) in kernel.images.iter_mut().enumerate() {
            match it.decision.clone() {
                Decision::UpToDate => {}
                Decision::Keep(_) | Decision::Unchecked(_) => it.is_outdated = true,
                Decision::Restore(why) => faults.push((index, why)),
                Decision::Regenerate(_) if machine.tools.stop.asked().is_some() => {
                    errors.push(not_regenerated(&name, &it.image, "interrupted"));
                    it.is_outdated = true;
                }
                Decision::Regenerate(_) => stale.push(index),
            }
        }
        errors.extend(self.restore_all(machine, generator, kernel, faults));
        if !stale.is_empty() {
            let not_copied = self.copy_images(machine, kernel, &stale);
            stale.retain(|index| {
                // An image that is overwritten in place could be lost without a copy.
                let written = written_with(kernel, &[*index]);
                let size = |index: &usize| kernel.images[*index].image.size(&machine.trees.root);
                let total: u64 = written.iter().map(size).sum();
                let mut at_risk = written.iter().filter(|index| {
                    let it = &kernel.images[**index];
                    // Allow for each of the other images to double in size.
                    let others = total.saturating_sub(size(index));
                    it.facts.current.contents().is_some()
                        && generator.overwrites(machine, &it.image, others)
                });
                let Some(why) = at_risk.find_map(|index| not_copied.get(index)) else {
                    return true;
                };
                let it = &mut kernel.images[*index];
                errors.push(not_regenerated(&name, &it.image, why));
                it.is_outdated = true;
                false
            });
        }
        for it in stale.iter().map(|index| &kernel.images[*index]) {
            if let Decision::Regenerate(why) = &it.decision {
                say(&format!("{name}: regenerating {}: {why}", it.image.path.display()));
            }
        }
        if !stale.is_empty() {
            errors.extend(self.run_generator(machine, generator, kernel, &stale, say));
        }
        // Check all images, including those that another hook regenerated: sbctl's own hook does
        // not run when modules change.
        let was_signed =
            |it: &&ImageAssessment| self.snapshot.of(&it.image).is_some_and(|old| old.signed);
        let signed = kernel.images.iter().filter(was_signed);
        errors.extend(signed.filter_map(|it| sign_again(machine, &it.image, &name)));
        errors
    }

    /// Copies the images that the generator is about to write. Returns the indexes of those without
    /// a copy, each with the reason.
    ///
    /// Keeps an existing copy if it was made while the current objects were installed, or if the
    /// image is now broken.
    fn copy_images(
        &mut self,
        machine: &Machine,
        kernel: &KernelAssessment,
        stale: &[usize],
    ) -> BTreeMap<usize, String> {
        let mut not_copied = BTreeMap::new();
        let root = &machine.trees.root;
        let has_same_objects = self.snapshot.has_objects(&kernel.kernel.release, &kernel.modules);
        for index in written_with(kernel, stale) {
            let ImageAssessment { image, facts, .. } = &kernel.images[index];
            let contents = facts.current.contents();
            let old = self.snapshot.of(image);
            let has_copy = old.is_some_and(|old| old.copy.is_some());
            if has_copy && (has_same_objects || contents.is_none()) {
                continue;
            }
            let is_regenerated = has_same_objects && old.is_some_and(|old| !old.is_same(root));
            let copied = if !is_regenerated {
                self.snapshot.add(machine, image, contents.cloned(), true)
            } else if contents.is_some() {
                // The record stays, because the next image is compared with it.
                self.snapshot.copy(machine, image)
            } else {
                Ok(())
            };
            not_copied.extend(copied.err().map(|why| (index, why)));
        }
        // If this run is killed while a generator writes an image, the next run finds the copies.
        if let Err(error) = self.snapshot.write(machine) {
            log::warn!("{error}");
        }
        not_copied
    }

    /// Runs the generator for the images at the indexes `stale`. Returns a line for each error.
    ///
    /// An image is judged by its contents: mkinitcpio fails if its configuration names a module
    /// that does not exist, but generates the image nevertheless.
    fn run_generator(
        &self,
        machine: &Machine,
        generator: &Generator,
        kernel: &mut KernelAssessment,
        stale: &[usize],
        say: &mut dyn FnMut(&str),
    ) -> Vec<String> {
        let images: Vec<&Image> = stale.iter().map(|index| &kernel.images[*index].image).collect();
        images.iter().for_each(|image| generator.remove_temporary(machine, image));
        let mut failures: Vec<GeneratorFailure> = Vec::new();
        for command in generator.commands(machine, &kernel.kernel, &images) {
            if machine.tools.stop.asked().is_none() {
                failures.extend(command.run().err());
            }
        }
        // Restoring a previous image may need the space.
        images.iter().for_each(|image| generator.remove_temporary(machine, image));
        let errors = self.judge(machine, generator, kernel, stale, &failures);
        let failures = failures.iter().map(|failure| failure_text(kernel, stale, &failure.why));
        if errors.is_empty() {
            failures.for_each(|text| say(&format!("warning: {text}; the images are complete")));
            return errors;
        }
        failures.map(|text| format!("error: {text}")).chain(errors).collect()
    }

    /// Judges the images that the generator has written, and restores the bad ones. Returns a line
    /// for each error.
    fn judge(
        &self,
        machine: &Machine,
        generator: &Generator,
        kernel: &mut KernelAssessment,
        stale: &[usize],
        failures: &[GeneratorFailure],
    ) -> Vec<String> {
        let root = &machine.trees.root;
        let mut written = Vec::new();
        for index in written_with(kernel, stale) {
            let it = &mut kernel.images[index];
            let old = self.snapshot.of(&it.image);
            let is_untouched = old.is_some_and(|old| old.is_untouched(root));
            if is_untouched && !stale.contains(&index) {
                continue;
            }
            it.facts.current = inspect(generator, &it.image.below(root));
            // The snapshot may be newer than the facts.
            it.facts.earlier = old.map(|old| earlier(Some(old), root));
            written.push((index, is_untouched));
        }
        // If space ran out while an image was written, that image is damaged or unchanged.
        let shows_lack = written.iter().any(|(index, is_untouched)| {
            let current = &kernel.images[*index].facts.current;
            *is_untouched || matches!(current, CurrentImage::Unreadable(_))
        });
        let changed = self.pending.changed_modules(&kernel.kernel.release);
        let removed: BTreeSet<&KmodName> = changed.difference(&kernel.modules.placed).collect();
        let ended = GeneratorsEnded {
            has_failed: failures.iter().any(|failure| !only_misses(failure, &removed)),
            lacks_space: !shows_lack && failures.iter().any(GeneratorFailure::lacks_space),
        };
        let faults = written.into_iter().filter_map(|(index, is_untouched)| {
            let why = fault(machine, generator, &kernel.images[index], is_untouched, ended)?;
            Some((index, why))
        });
        let faults = faults.collect();
        self.restore_all(machine, generator, kernel, faults)
    }
}

/// Returns the name of a kernel and the failure `why` of its generator. If the failure names a
/// module that the images at the indexes `stale` need, adds the setting that names the module.
fn failure_text(kernel: &KernelAssessment, stale: &[usize], why: &str) -> String {
    let needed = stale.iter().filter_map(|it| kernel.images[*it].facts.configured.as_ref());
    let needed: BTreeMap<_, _> = needed.flatten().collect();
    let culprit = needed.iter().find(|(module, _)| names(why, module));
    let culprit =
        culprit.map_or_else(String::new, |(module, place)| format!("; {place} names {module}"));
    format!("{}: {why}{culprit}", kernel.name())
}

/// How the commands of a generator ended.
#[derive(Debug, Clone, Copy)]
struct GeneratorsEnded {
    /// Whether a command failed for another reason than a removed module that the configuration
    /// names. That module's dependencies are then missing from the image, too.
    has_failed: bool,
    /// Whether a disk was full, and the images do not reveal which of them are incomplete.
    lacks_space: bool,
}

/// Returns the fault of an image after the generator has run; `None` if the image is good.
fn fault(
    machine: &Machine,
    generator: &Generator,
    it: &ImageAssessment,
    is_untouched: bool,
    GeneratorsEnded { has_failed, lacks_space }: GeneratorsEnded,
) -> Option<String> {
    let undone = |why: &str| match machine.tools.stop.asked() {
        Some(_) => Some("interrupted".to_owned()),
        None => Some(why.to_owned()),
    };
    // The administrator's own command may write to another path.
    let writes_here = machine.settings.initramfs.command.is_empty();
    match &it.facts.current {
        CurrentImage::Holds(_) if is_untouched && has_failed => undone("the generator failed"),
        CurrentImage::Holds(_) if is_untouched && writes_here => {
            undone("the generator did not change it")
        }
        CurrentImage::Holds(_) if generator.is_unknown() => {
            has_failed.then(|| "the generator failed".to_owned())
        }
        CurrentImage::Holds(_) if lacks_space => {
            Some("the generator ran out of disk space".to_owned())
        }
        CurrentImage::Holds(now) => {
            let lacking = lacking(&it.facts, now, has_failed);
            let names: Vec<&str> = lacking.iter().map(KmodName::as_str).collect();
            if !names.is_empty() {
                return Some(format!("generated without {}", names.join(", ")));
            }
            it.facts.incomplete(now).filter(|_| has_failed)
        }
        // An unknown generator may use another file name.
        CurrentImage::Missing if generator.is_unknown() && !has_failed => None,
        CurrentImage::Missing => undone("the generator did not create it"),
        CurrentImage::Unreadable(why) => Some(why.clone()),
    }
}

/// Returns the indexes of all images that are written when the images at the indexes `stale` are
/// regenerated. These include the other images of the same presets.
fn written_with(kernel: &KernelAssessment, stale: &[usize]) -> Vec<usize> {
    let preset = |index: usize| kernel.images[index].image.preset.as_ref();
    let presets: BTreeSet<&String> = stale.iter().filter_map(|index| preset(*index)).collect();
    let is_written = |index: &usize| {
        stale.contains(index) || preset(*index).is_some_and(|preset| presets.contains(preset))
    };
    (0..kernel.images.len()).filter(is_written).collect()
}

/// Returns true if each error of a generator names one of the modules `removed`.
fn only_misses(failure: &GeneratorFailure, removed: &BTreeSet<&KmodName>) -> bool {
    let is_about_removed = |error: &String| removed.iter().any(|module| names(error, module));
    !failure.errors.is_empty() && failure.errors.iter().all(is_about_removed)
}

/// Returns true if a generator's error names a module as a whole word.
fn names(error: &str, module: &KmodName) -> bool {
    let is_word_char = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    error.split(|c| !is_word_char(c)).any(|word| KmodName::new(word) == *module)
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
    let ran = command.run();
    if is_signed(&file) {
        return None;
    }
    let why = ran.err().map(|failure| format!(" ({})", failure.why)).unwrap_or_default();
    let path = image.path.display();
    Some(format!(
        "error: {name}: {path}: no longer signed{why}; will not boot with Secure Boot enabled; run: {}",
        command.line()
    ))
}

#[cfg(test)]
mod tests;
