//! Which program makes the images of this machine.

mod booster;
pub mod command;
mod dracut;
mod kernel_install;
pub(crate) mod mkinitcpio;
pub(crate) mod pacman_hook;
mod shell_settings;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::os::process::{Environment, Output, Program};

use crate::generators::command::Call;
use crate::image::contents::{Contents, Listing};
use crate::image::kmod_name::KmodName;
use crate::image::{Image, Kind};

/// How long a lister may take.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Our hook that notes how images are.
const NOTE: &str = "90-mkinitcpio-dkms.hook";

/// A program that makes initramfs images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generator {
    /// Arch's own.
    Mkinitcpio,
    /// dracut.
    Dracut,
    /// booster.
    Booster,
    /// One that is not known here, which the administrator's own command calls. What is in its images cannot be told.
    Other,
}

impl Generator {
    /// All, those first that a machine without further hints is likely to use.
    const ALL: [Self; 3] = [Self::Mkinitcpio, Self::Dracut, Self::Booster];

    /// Its name, the program's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mkinitcpio => "mkinitcpio",
            Self::Dracut => "dracut",
            Self::Booster => "booster",
            Self::Other => "",
        }
    }

    /// The name of its pacman hook; empty, and thus before all others, if it is not known.
    fn hook(self) -> &'static str {
        match self {
            Self::Mkinitcpio => mkinitcpio::HOOK,
            Self::Dracut => dracut::HOOK,
            Self::Booster => booster::HOOK,
            Self::Other => "",
        }
    }

    /// Whether its own pacman hook runs before 90-mkinitcpio-dkms, by the order of their names.
    #[must_use]
    pub fn is_ahead_of_note(self) -> bool {
        self.hook() < NOTE
    }

    /// The generator of this machine: the one that `[initramfs] generator` names, or else one that is installed.
    /// Where several are, the one whose pacman hook is active makes the images. Where none is, `[initramfs] command`
    /// may call one that is not known here. None on a machine without images (a container).
    #[must_use]
    pub fn of(machine: &Machine) -> Option<Self> {
        let root = &machine.trees.root;
        let named = &machine.settings.initramfs.generator;
        if let Some(generator) = Self::ALL.into_iter().find(|generator| generator.name() == named) {
            return Some(generator);
        }
        if !named.is_empty() {
            log::warn!("[initramfs] generator names {named:?}, which is not known here");
        }
        let installed = |it: &Self| root.join("usr/bin").join(it.name()).exists();
        let all: Vec<Self> = Self::ALL.into_iter().filter(installed).collect();
        let active = all.iter().find(|it| pacman_hook::is_active(root, it.hook()));
        let other = (!machine.settings.initramfs.command.is_empty()).then_some(Self::Other);
        active.or(all.first()).copied().or(other)
    }

    /// The images that it keeps for a kernel, whoever calls it.
    #[must_use]
    pub fn images(self, machine: &Machine, kernel: &Kernel) -> Vec<Image> {
        let mut images = kernel_install::images(machine, kernel);
        let own = match self {
            Self::Mkinitcpio => mkinitcpio::images(machine, kernel),
            Self::Dracut => dracut::images(machine, kernel),
            Self::Booster => booster::images(machine, kernel),
            Self::Other => other_images(machine, kernel),
        };
        let other = |image: &Image| images.iter().all(|known| known.path != image.path);
        let own: Vec<Image> = own.into_iter().filter(other).collect();
        images.extend(own);
        images
    }

    /// The kernel modules that its configuration names for an image, each with the place that names it.
    ///
    /// # Errors
    /// A sentence if the configuration cannot be read.
    pub fn wanted(
        self,
        machine: &Machine,
        kernel: &Kernel,
        image: &Image,
    ) -> Result<BTreeMap<KmodName, String>, String> {
        match self {
            Self::Mkinitcpio => mkinitcpio::wanted(machine, kernel, image),
            Self::Dracut => dracut::wanted(machine, kernel),
            Self::Booster => Ok(booster::wanted(machine)),
            Self::Other => Err("what [initramfs] command puts into images is not known".into()),
        }
    }

    /// How these images, all of one kernel, are regenerated.
    #[must_use]
    pub fn calls(self, machine: &Machine, kernel: &Kernel, images: &[&Image]) -> Vec<Call> {
        let command = &machine.settings.initramfs.command;
        if !command.is_empty() {
            return own_calls(command, kernel, images);
        }
        let entry = kernel_install::call(machine, kernel);
        let installed = match entry {
            Some(_) => kernel_install::images(machine, kernel),
            None => Vec::new(),
        };
        let (installed, own): (Vec<&Image>, Vec<&Image>) =
            images.iter().copied().partition(|image| installed.contains(image));
        let mut calls: Vec<Call> = entry.filter(|_| !installed.is_empty()).into_iter().collect();
        if !own.is_empty() {
            calls.extend(match self {
                Self::Mkinitcpio => mkinitcpio::calls(machine, kernel, &own),
                Self::Dracut => dracut::calls(machine, kernel, &own),
                Self::Booster => booster::calls(machine, kernel, &own),
                Self::Other => Vec::new(),
            });
        }
        calls
    }

    /// What is in an image file.
    ///
    /// # Errors
    /// A sentence if it cannot be listed: the lister is missing, or the file is no image.
    pub fn list(self, path: &Path) -> Result<Contents, String> {
        let (program, args): (_, &[&str]) = match self {
            // `-a` names only what comes from the kernel's own directories.
            Self::Mkinitcpio => ("lsinitcpio", &["-l"]),
            Self::Dracut => ("lsinitrd", &[]),
            Self::Booster => ("booster", &["ls"]),
            Self::Other => return Ok(Contents::default()),
        };
        let (mut listing, mut last) = (Listing::default(), String::new());
        let mut read = |line: &str| {
            listing.line(line);
            last = line.to_owned();
        };
        let ended = Program::new(program, &Environment::fixed())
            .args(args.iter().copied())
            .arg(path)
            .deadline(PATIENCE)
            .output(Output::Lines(&mut read))
            .run()
            .map_err(|error| error.to_string())?;
        let contents = listing.end().filter(|_| ended.success());
        contents.ok_or_else(|| {
            // It may have listed half of the files before it failed.
            let complaint = ended.complaint();
            let why = complaint.lines().next().unwrap_or(&last).trim();
            format!("{program} cannot list {} ({}): {why}", path.display(), ended.how)
        })
    }
}

/// The images that a generator is likely to make which we do not know: those with a usual name that are there, or else
/// the most usual one.
fn other_images(machine: &Machine, kernel: &Kernel) -> Vec<Image> {
    let release = kernel.release.as_str();
    let name = kernel.pkgbase.as_deref().unwrap_or(release);
    let usual = [
        format!("/boot/initramfs-{name}.img"),
        format!("/boot/initramfs-{release}.img"),
        format!("/boot/initrd.img-{release}"),
    ];
    let image = |path: String| Image {
        path: path.into(),
        kind: Kind::Initramfs,
        kernel: kernel.release.clone(),
        preset: None,
    };
    let mut images: Vec<Image> = usual.into_iter().map(image).collect();
    images.dedup();
    let is_there = |image: &Image| image.below(&machine.trees.root).is_file();
    if images.iter().any(is_there) {
        images.retain(is_there);
    } else {
        images.truncate(1);
    }
    images
}

/// The administrator's own command, once for each image: `%k` is the kernel's release, `%i` the image, `%p` its preset
/// or package.
fn own_calls(command: &str, kernel: &Kernel, images: &[&Image]) -> Vec<Call> {
    let pkgbase = kernel.pkgbase.as_deref().unwrap_or_default();
    let call = |image: &str| {
        let word = |word: &str| {
            word.replace("%k", kernel.release.as_str()).replace("%i", image).replace("%p", pkgbase)
        };
        Call { words: command.split_whitespace().map(word).collect(), stdin: String::new() }
    };
    let mut calls: Vec<Call> =
        images.iter().map(|image| call(&image.path.display().to_string())).collect();
    calls.dedup();
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hook_of_mkinitcpio_comes_after_the_note() {
        let ahead: Vec<&str> = Generator::ALL
            .into_iter()
            .filter(|it| it.is_ahead_of_note())
            .map(Generator::name)
            .collect();
        assert_eq!(ahead, ["dracut", "booster"]);
    }
}
