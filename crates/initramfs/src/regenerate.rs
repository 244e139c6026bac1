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
                Decision::Regenerate(why) => match obstacle(machine, generator, &it.image) {
                    // The generator probably ran out of space earlier and damaged the image.
                    Some(obstacle)
                        if matches!(it.current, CurrentImage::Unreadable(_))
                            && self.snapshot.of(&it.image).is_some() =>
                    {
                        errors.push(self.restore(machine, generator, it, &name, &obstacle));
                    }
                    Some(obstacle) => {
                        errors.push(format!("error: {name}: {path}: not regenerated: {obstacle}"));
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

    /// Restores an image from its copy if the image has changed and the copy's kernel is still
    /// installed. Returns an error line with the reason `why` and the outcome.
    fn restore(
        &self,
        machine: &Machine,
        generator: &Generator,
        it: &mut ImageAssessment,
        name: &str,
        why: &str,
    ) -> String {
        it.is_outdated = true;
        let path = it.image.path.display();
        let error = format!("error: {name}: {path}: {why}");
        let old = self.snapshot.of(&it.image);
        if it.current != CurrentImage::Missing
            && old.is_some_and(|old| old.is_same(&it.image, &machine.trees.root))
        {
            return format!("error: {name}: {path}: not regenerated: {why}");
        }
        let old = old.and_then(|old| Some((old, old.copy.as_ref()?)));
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

/// Returns the reason why an image cannot be written, or `None` if it can. Checked in advance,
/// because a truncated image is worse than a stale one.
fn obstacle(machine: &Machine, generator: &Generator, image: &Image) -> Option<String> {
    let file = image.below(&machine.trees.root);
    // The generator creates missing directories.
    let dir = file.parent()?.ancestors().find(|dir| dir.exists())?;
    // The administrator's own command may make the file system writable.
    if machine.settings.initramfs.command.is_empty() && durable::is_read_only(dir) {
        return Some(format!("{}: read-only file system", image.path.parent()?.display()));
    }
    let old = file.metadata().map_or(0, |meta| meta.len());
    // mkinitcpio overwrites the old image. The other generators first write a new file beside it.
    let needed = if generator.is_mkinitcpio() { old / 20 } else { old } + MARGIN;
    let space = durable::free_space(dir).filter(|space| *space < needed)?;
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use dkms_engine::dkms_tree::{PendingList, PendingWork};
    use dkms_engine::os::process::{Environment, Program};
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;

    const IMAGE: &str = "boot/initramfs-linux.img";

    /// Returns a root with a kernel of the package `pkgbase`, whose images are pending.
    fn pending_root(pkgbase: &str) -> TestRoot {
        let root = TestRoot::new();
        root.kernel("7.2").pkgbase(pkgbase);
        let work =
            PendingWork::Image { kernel: "7.2".parse().unwrap(), objects: ["zfs".into()].into() };
        let machine = Machine::for_hook(root.path());
        PendingList::of(&machine.trees).write(&work).unwrap();
        root
    }

    /// Regenerates the pending images of a root. Returns the errors, and asserts that the images
    /// stay pending if there are any.
    fn errors(root: &TestRoot) -> Vec<String> {
        let machine = Machine::for_hook(root.path());
        let generator = Generator::detect(&machine);
        let mut lines = Vec::new();
        let mut say = |line: &str| lines.push(line.to_owned());
        let succeeded =
            Assessment::read(&machine, generator.as_ref()).regenerate(&machine, &mut say);
        let is_pending = !PendingList::of(&machine.trees).read().is_empty();
        assert_eq!(is_pending, !succeeded);
        lines.retain(|line| line.starts_with("error: "));
        lines
    }

    /// Each case is a generator script that fails, and the expected end of the error. The script's
    /// argument is the path of the image.
    #[rstest]
    #[case::untouched("exit 3", "not regenerated: the generator failed")]
    #[case::same_content("printf old >$1; exit 3", "not regenerated: the generator failed")]
    #[case::spoilt("echo >$1; exit 3", "the generator failed; restored the previous image")]
    fn only_a_changed_image_is_restored(#[case] script: &str, #[case] want: &str) {
        let root = pending_root("linux");
        root.write(IMAGE, "old");
        root.executable("generate", &format!("#!/bin/sh\n{script}\n"));
        let command = format!("{} {}", root.at("generate").display(), root.at(IMAGE).display());
        root.write("etc/dkms/alpm-dkms.toml", format!("[initramfs]\ncommand = '{command}'\n"));
        assert_eq!(
            errors(&root),
            [
                format!("error: 7.2 (linux): {command} failed (exit status 3)"),
                format!("error: 7.2 (linux): /{IMAGE}: {want}"),
            ]
        );
        assert_eq!(root.read(IMAGE), "old");
    }

    /// Mounts a tmpfs, and unmounts it when dropped.
    struct Mounted<'a>(&'a Path);

    impl Mounted<'_> {
        fn run(&self, program: &str, words: &[&str]) {
            let env = Environment::fixed();
            let run = Program::new(program, &env).args(words.iter().copied()).arg(self.0).run();
            assert!(run.unwrap().success());
        }
    }

    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            self.run("umount", &[]);
        }
    }

    #[rstest]
    #[case::read_only(Some("old"), "remount,ro", "/boot: read-only file system")]
    #[case::read_only_without_an_image(None, "remount,ro", "/boot: read-only file system")]
    #[case::full(
        Some("old"),
        "remount,size=64k",
        "not enough space in /boot: 60 KiB free, 1024 KiB needed"
    )]
    #[ignore = "needs root: run make unit"]
    fn an_image_that_cannot_be_written_stays_pending(
        #[case] content: Option<&str>,
        #[case] options: &str,
        #[case] why: &str,
    ) {
        let root = pending_root("none");
        root.dir("boot");
        let boot = root.at("boot");
        let mounted = Mounted(&boot);
        mounted.run("mount", &["-t", "tmpfs", "none"]);
        content.iter().for_each(|text| root.write(IMAGE, text));
        // No machine has this preset, and a generator that runs would fail.
        let preset = "ALL_kver=/boot/vmlinuz\nPRESETS=(default)\n";
        root.write("etc/mkinitcpio.d/none.preset", format!("{preset}default_image=/{IMAGE}\n"));
        root.write("usr/bin/mkinitcpio", "");
        let machine = Machine::for_hook(root.path());
        crate::take_snapshot(&machine, &Generator::detect(&machine).unwrap()).unwrap();
        mounted.run("mount", &["-o", options]);
        let want = format!("error: 7.2 (none): /{IMAGE}: not regenerated: {why}");
        assert_eq!(errors(&root), [want]);
        assert_eq!(fs::read_to_string(root.at(IMAGE)).ok().as_deref(), content);
    }
}
