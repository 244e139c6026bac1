//! The generators of initramfs images.
//!
//! | Generator | Its images | Its commands | The settings that it reads | Its pacman hook |
//! |---|---|---|---|---|
//! | [`mkinitcpio`] | those that a preset names; `/boot/initramfs-RELEASE.img` | `mkinitcpio -p PRESET`, `mkinitcpio -k RELEASE -g IMAGE` | `/etc/mkinitcpio.d/*.preset`, `/etc/mkinitcpio.conf`, `/etc/mkinitcpio.conf.d` | `90-mkinitcpio-install` |
//! | [`dracut`] | `/boot/initramfs-NAME.img`, `/boot/initramfs-NAME-fallback.img`, `EFI/Linux/*.efi` with the kernel's name | `dracut --force --kver RELEASE IMAGE` | `/etc/dracut.conf`, `/etc/dracut.conf.d`, `/usr/lib/dracut/dracut.conf.d` | `90-dracut-install` |
//! | [`booster`] | `/boot/booster-NAME.img` | `booster build --force --kernel-version RELEASE IMAGE` | `/etc/booster.yaml` | `90-booster-install` |
//! | [`custom`] | `/boot/initramfs-NAME.img` | `[initramfs] command` | unknown | none |
//!
//! RELEASE is the kernel's release, and NAME its package or release. If an image or its kernel file
//! in /boot is missing, the command of the generator's pacman hook creates image and kernel file.
//!
//! [`kernel_install`] is not a generator but calls one. The images in its boot entries are found
//! and regenerated whichever generator is in use.
//!
//! To add a generator, write its file and add it to [`supported`].

mod booster;
mod command;
mod custom;
mod dracut;
mod kernel_install;
mod mkinitcpio;
pub(crate) mod pacman_hook;
mod shell_settings;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::os::process::{Environment, Output, Program};
use dkms_engine::os::{durable, paths};

use crate::image::{Contents, Image, ImageKind, KmodName, Listing};
use booster::Booster;
pub(crate) use command::{GeneratorCommand, GeneratorFailure};
use custom::Custom;
use dracut::Dracut;
pub(crate) use mkinitcpio::HOOK as MKINITCPIO_HOOK;
use mkinitcpio::Mkinitcpio;
use pacman_hook::HookInEffect;

/// The time limit for listing an image.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The value of `[initramfs] generator` that tells alpm-dkms to leave all images alone.
const NONE: &str = "none";

/// A program that generates images.
trait Tool: Debug {
    /// Returns the name of the program; empty if it is unknown.
    fn name(&self) -> &'static str;

    /// Returns the file name of the generator's pacman hook; `None` if it has none.
    fn hook(&self) -> Option<&'static str>;

    /// Returns the command that lists the files in an image; the caller appends the image's path.
    /// Returns `None` if images cannot be listed.
    fn list_command(&self) -> Option<&'static [&'static str]>;

    /// Returns the images of a kernel: the existing ones, and the missing ones that the generator
    /// or its pacman hook creates.
    fn images(&self, machine: &Machine, kernel: &Kernel) -> Vec<Image>;

    /// Returns the temporary file that the generator writes and then renames to the image; `None`
    /// if the name of the temporary file is not known.
    fn temporary(&self, _image: &Image) -> Option<PathBuf> {
        None
    }

    /// Returns the kernel modules that the configuration adds to an image, each mapped to the
    /// setting that names it.
    ///
    /// # Errors
    /// A message if the configuration cannot be read.
    fn configured_modules(
        &self,
        machine: &Machine,
        kernel: &Kernel,
        image: &Image,
    ) -> Result<BTreeMap<KmodName, String>, String>;

    /// Returns the commands that regenerate `images`, which all belong to `kernel`.
    fn commands(
        &self,
        machine: &Machine,
        kernel: &Kernel,
        images: &[&Image],
    ) -> Vec<GeneratorCommand>;
}

/// Returns the supported generators, in order of preference.
fn supported() -> [Box<dyn Tool>; 3] {
    [Box::<Mkinitcpio>::default(), Box::new(Dracut), Box::new(Booster)]
}

/// The program that generates the initramfs images of a machine. Each run detects the generator
/// once.
#[derive(Debug)]
pub struct Generator {
    tool: Box<dyn Tool>,
}

impl Generator {
    /// Detects the generator of this machine. Returns `None` on a machine without images, such as a
    /// container, and if `[initramfs] generator` is `none`.
    ///
    /// Tries in this order: the generator that `[initramfs] generator` names, an installed
    /// generator with an active pacman hook, any installed generator, and an unknown generator if
    /// `[initramfs] command` is set.
    #[must_use]
    pub fn detect(machine: &Machine) -> Option<Self> {
        let (root, settings) = (&machine.trees.root, &machine.settings.initramfs);
        let named = settings.generator.as_str();
        if named == NONE {
            return None;
        }
        let first = |is_right: &dyn Fn(&dyn Tool) -> bool| {
            supported().into_iter().find(|tool| is_right(tool.as_ref()))
        };
        let by_name = first(&|tool| tool.name() == named);
        if by_name.is_none() && !named.is_empty() {
            log::warn!("unknown [initramfs] generator: {named:?}");
        }
        let is_installed = |tool: &dyn Tool| root.join("usr/bin").join(tool.name()).exists();
        let is_active =
            |tool: &dyn Tool| tool.hook().is_some_and(|hook| pacman_hook::is_active(root, hook));
        let tool = by_name
            .or_else(|| first(&|tool| is_installed(tool) && is_active(tool)))
            .or_else(|| first(&is_installed))
            .or_else(|| (!settings.command.is_empty()).then(|| Box::new(Custom) as Box<dyn Tool>));
        Some(Self { tool: tool? })
    }

    pub(crate) fn is_mkinitcpio(&self) -> bool {
        self.tool.hook() == Some(MKINITCPIO_HOOK)
    }

    /// Returns true if `[initramfs] command` runs an unknown generator.
    pub(crate) fn is_unknown(&self) -> bool {
        self.tool.list_command().is_none()
    }

    /// Returns true if the images at the generator's usual paths are made by this generator. Images
    /// that another program makes are not regenerated.
    ///
    /// If the generator's pacman hook is masked or overridden by another program, such as
    /// limine-mkinitcpio-hook, the images are made in another way or not at all. The settings can
    /// state that the generator makes them nevertheless.
    fn makes_images(&self, machine: &Machine) -> bool {
        let settings = &machine.settings.initramfs;
        let by_settings = settings.generator == self.tool.name() || !settings.command.is_empty();
        by_settings
            || match self.hook_in_effect(machine) {
                HookInEffect::Stock | HookInEffect::Missing => true,
                HookInEffect::Masked | HookInEffect::Foreign => false,
            }
    }

    fn hook_in_effect(&self, machine: &Machine) -> HookInEffect {
        let of = |hook| HookInEffect::of(&machine.trees.root, hook);
        self.tool.hook().map_or(HookInEffect::Missing, of)
    }

    /// Returns true if regenerating an image also replaces the image's kernel file when that file
    /// is of another release.
    ///
    /// Only the command of the generator's own pacman hook replaces the file, and only for packaged
    /// kernels.
    pub(crate) fn copies_kernel(&self, machine: &Machine) -> bool {
        let has_command = |hook| pacman_hook::exec(&machine.trees.root, hook).is_some();
        machine.settings.initramfs.command.is_empty()
            && self.hook_in_effect(machine) == HookInEffect::Stock
            && self.tool.hook().is_some_and(has_command)
    }

    /// Returns the images of a kernel: those in kernel-install's boot entries, then the generator's
    /// own. Omits the generator's own images if another program makes them.
    pub(crate) fn images(&self, machine: &Machine, kernel: &Kernel) -> Vec<Image> {
        let mut images = kernel_install::images(machine, kernel);
        if !self.makes_images(machine) {
            return images;
        }
        let own = self.tool.images(machine, kernel);
        let other = |image: &Image| images.iter().all(|known| known.path != image.path);
        let own: Vec<Image> = own.into_iter().filter(other).collect();
        images.extend(own);
        images
    }

    /// Returns the kernel modules that the configuration adds to an image, each mapped to the
    /// setting that names it.
    ///
    /// # Errors
    /// A message if the configuration cannot be read.
    pub(crate) fn configured_modules(
        &self,
        machine: &Machine,
        kernel: &Kernel,
        image: &Image,
    ) -> Result<BTreeMap<KmodName, String>, String> {
        self.tool.configured_modules(machine, kernel, image)
    }

    /// Returns the commands that regenerate `images`, which all belong to `kernel`.
    pub(crate) fn commands(
        &self,
        machine: &Machine,
        kernel: &Kernel,
        images: &[&Image],
    ) -> Vec<GeneratorCommand> {
        if !machine.settings.initramfs.command.is_empty() {
            return Custom.commands(machine, kernel, images);
        }
        let add_entry = kernel_install::command(machine, kernel);
        let (of_entry, own): (Vec<&Image>, Vec<&Image>) = images.iter().partition(|image| {
            add_entry.is_some() && kernel_install::makes(machine, kernel, &image.path)
        });
        let mut commands: Vec<GeneratorCommand> =
            add_entry.filter(|_| !of_entry.is_empty()).into_iter().collect();
        if !own.is_empty() {
            commands.extend(self.tool.commands(machine, kernel, &own));
        }
        commands
    }

    /// Removes the file that a failed or killed generator has left beside an image.
    ///
    /// If such a file leaves too little space, mkinitcpio overwrites the image directly, and
    /// destroys it if the space runs out.
    pub(crate) fn remove_temporary(&self, machine: &Machine, image: &Image) {
        let removed =
            self.temporary(machine, image).map(|file| durable::remove_file_if_there(&file));
        if let Some(Err(error)) = removed {
            log::warn!("{error}");
        }
    }

    /// Returns true if the generator may overwrite an image directly instead of replacing it.
    ///
    /// mkinitcpio overwrites every unified kernel image. It overwrites any other image if the free
    /// space is less than 1.25 times the image's size. `growth` is the number of bytes by which
    /// the other images may grow.
    pub(crate) fn overwrites(&self, machine: &Machine, image: &Image, growth: u64) -> bool {
        let file = image.below(&machine.trees.root);
        let Ok(meta) = file.metadata() else { return false };
        let free = file.parent().and_then(durable::free_space);
        let has_room = free.is_some_and(|free| free > meta.len() / 4 * 5 + growth);
        self.is_mkinitcpio() && (image.kind == ImageKind::Uki || !has_room)
    }

    /// Returns the size in bytes of the file that [`remove_temporary`](Self::remove_temporary)
    /// removes.
    pub(crate) fn size_of_temporary(&self, machine: &Machine, image: &Image) -> u64 {
        let file = self.temporary(machine, image).and_then(|file| file.metadata().ok());
        file.map_or(0, |meta| meta.len())
    }

    fn temporary(&self, machine: &Machine, image: &Image) -> Option<PathBuf> {
        self.tool.temporary(image).map(|file| paths::below(&machine.trees.root, &file))
    }

    /// Lists the contents of the image file at `path`. If the generator is unknown, returns empty
    /// contents.
    ///
    /// # Errors
    /// A message if the listing program is missing or the file is not an image.
    pub(crate) fn list(&self, path: &Path) -> Result<Contents, String> {
        let Some((program, args)) = self.tool.list_command().and_then(<[_]>::split_first) else {
            return Ok(Contents::default());
        };
        let (mut listing, mut last) = (Listing::default(), String::new());
        let mut read = |line: &str| {
            listing.line(line);
            last = line.to_owned();
        };
        let ended = Program::new(program, &Environment::fixed())
            .args(args.iter().copied())
            .arg(path)
            .deadline(TIMEOUT)
            .output(Output::Lines(&mut read))
            .run()
            .map_err(|error| error.to_string())?;
        let was_listing = listing.has_begun();
        let contents = listing.end().filter(|_| ended.success());
        contents.ok_or_else(|| {
            let complaint = ended.complaint();
            let said = complaint.lines().next().or((!was_listing).then_some(last.as_str()));
            let why = said.map_or("the image is incomplete", str::trim);
            format!("{program}: cannot list {} ({}): {why}", path.display(), ended.how)
        })
    }
}

#[cfg(test)]
mod tests;
