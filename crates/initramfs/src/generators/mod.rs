//! The program that makes the images of this machine.

mod booster;
mod command;
mod dracut;
mod kernel_install;
mod mkinitcpio;
pub(crate) mod pacman_hook;
mod shell_settings;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::os::process::{Environment, Output, Program};

use crate::image::{Contents, Image, ImageKind, KmodName, Listing};
pub(crate) use command::GeneratorCommand;
pub(crate) use mkinitcpio::HOOK as MKINITCPIO_HOOK;
use mkinitcpio::Preset;

/// The time limit of a lister.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// The hook of ours that takes a snapshot of the images.
const SNAPSHOT_HOOK: &str = "90-mkinitcpio-dkms.hook";

/// The program that makes the initramfs images of one machine. Detected once in a run and handed along.
#[derive(Debug)]
pub struct Generator {
    kind: GeneratorKind,
    /// mkinitcpio's presets. Reading them takes one bash each, so they are read when first needed, and once.
    presets: OnceCell<Vec<Preset>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GeneratorKind {
    Mkinitcpio,
    Dracut,
    Booster,
    /// An unknown one, called by the administrator's own command. The contents of its images are unknown.
    Other,
}

impl GeneratorKind {
    /// The known generators, the most likely one first.
    const KNOWN: [Self; 3] = [Self::Mkinitcpio, Self::Dracut, Self::Booster];

    /// Returns the name of the program.
    fn name(self) -> &'static str {
        match self {
            Self::Mkinitcpio => "mkinitcpio",
            Self::Dracut => "dracut",
            Self::Booster => "booster",
            Self::Other => "",
        }
    }

    /// Returns the name of its pacman hook. It is empty, and so sorts first, if the generator is unknown.
    fn hook(self) -> &'static str {
        match self {
            Self::Mkinitcpio => mkinitcpio::HOOK,
            Self::Dracut => dracut::HOOK,
            Self::Booster => booster::HOOK,
            Self::Other => "",
        }
    }

    /// Returns true if its own pacman hook runs before 90-mkinitcpio-dkms, in the order of their names.
    fn hook_precedes_snapshot(self) -> bool {
        self.hook() < SNAPSHOT_HOOK
    }
}

impl Generator {
    /// Detects the generator of this machine: the one that `[initramfs] generator` names, or else one that is
    /// installed. If several are installed, it is the one whose pacman hook is active. If none is, `[initramfs] command`
    /// may call an unknown one. Returns `None` on a machine without images, such as a container.
    #[must_use]
    pub fn detect(machine: &Machine) -> Option<Self> {
        let root = &machine.trees.root;
        let known = GeneratorKind::KNOWN.into_iter();
        let named = &machine.settings.initramfs.generator;
        let by_name = known.clone().find(|kind| kind.name() == named);
        if by_name.is_none() && !named.is_empty() {
            log::warn!("unknown [initramfs] generator: {named:?}");
        }
        let is_installed = |it: &GeneratorKind| root.join("usr/bin").join(it.name()).exists();
        let detect = || {
            let installed: Vec<GeneratorKind> = known.filter(is_installed).collect();
            let active = installed.iter().find(|it| pacman_hook::is_active(root, it.hook()));
            let has_command = !machine.settings.initramfs.command.is_empty();
            let other = has_command.then_some(GeneratorKind::Other);
            active.or(installed.first()).copied().or(other)
        };
        let kind = by_name.or_else(detect)?;
        Some(Self { kind, presets: OnceCell::new() })
    }

    /// Returns true if it is mkinitcpio.
    pub(crate) fn is_mkinitcpio(&self) -> bool {
        self.kind == GeneratorKind::Mkinitcpio
    }

    /// Returns true if only the administrator's own command knows it.
    pub(crate) fn is_unknown(&self) -> bool {
        self.kind == GeneratorKind::Other
    }

    /// Returns true if its own pacman hook runs before our hook that takes the snapshot.
    #[must_use]
    pub fn hook_precedes_snapshot(&self) -> bool {
        self.kind.hook_precedes_snapshot()
    }

    fn presets(&self, machine: &Machine) -> &[Preset] {
        self.presets.get_or_init(|| Preset::all(machine))
    }

    /// Returns the images that it keeps for a kernel.
    pub(crate) fn images(&self, machine: &Machine, kernel: &Kernel) -> Vec<Image> {
        let mut images = kernel_install::images(machine, kernel);
        let own = match self.kind {
            GeneratorKind::Mkinitcpio => mkinitcpio::images(machine, kernel, self.presets(machine)),
            GeneratorKind::Dracut => dracut::images(machine, kernel),
            GeneratorKind::Booster => booster::images(machine, kernel),
            GeneratorKind::Other => other_images(machine, kernel),
        };
        let other = |image: &Image| images.iter().all(|known| known.path != image.path);
        let own: Vec<Image> = own.into_iter().filter(other).collect();
        images.extend(own);
        images
    }

    /// Returns the kernel modules that the configuration puts into an image, each with the place that names it.
    ///
    /// # Errors
    /// A sentence if the configuration cannot be read.
    pub(crate) fn configured_modules(
        &self,
        machine: &Machine,
        kernel: &Kernel,
        image: &Image,
    ) -> Result<BTreeMap<KmodName, String>, String> {
        match self.kind {
            GeneratorKind::Mkinitcpio => {
                mkinitcpio::configured_modules(machine, kernel, image, self.presets(machine))
            }
            GeneratorKind::Dracut => dracut::configured_modules(machine, kernel),
            GeneratorKind::Booster => Ok(booster::configured_modules(machine)),
            GeneratorKind::Other => {
                Err("the contents of images made by [initramfs] command are unknown".into())
            }
        }
    }

    /// Returns the commands that regenerate these images, all of one kernel.
    pub(crate) fn commands(
        &self,
        machine: &Machine,
        kernel: &Kernel,
        images: &[&Image],
    ) -> Vec<GeneratorCommand> {
        let command = &machine.settings.initramfs.command;
        if !command.is_empty() {
            return administrators_commands(command, kernel, images);
        }
        let add_entry = kernel_install::command(machine, kernel);
        let of_entry = match add_entry {
            Some(_) => kernel_install::images(machine, kernel),
            None => Vec::new(),
        };
        let (of_entry, own): (Vec<&Image>, Vec<&Image>) =
            images.iter().copied().partition(|image| of_entry.contains(image));
        let mut commands: Vec<GeneratorCommand> =
            add_entry.filter(|_| !of_entry.is_empty()).into_iter().collect();
        if !own.is_empty() {
            commands.extend(match self.kind {
                GeneratorKind::Mkinitcpio => {
                    mkinitcpio::commands(machine, kernel, &own, self.presets(machine))
                }
                GeneratorKind::Dracut => dracut::commands(machine, kernel, &own),
                GeneratorKind::Booster => booster::commands(machine, kernel, &own),
                GeneratorKind::Other => Vec::new(),
            });
        }
        commands
    }

    /// Lists an image file.
    ///
    /// # Errors
    /// A sentence if the lister is missing or the file is not an image.
    pub(crate) fn list(&self, path: &Path) -> Result<Contents, String> {
        let (program, args): (_, &[&str]) = match self.kind {
            // `-a` names only what comes from the kernel's own directories.
            GeneratorKind::Mkinitcpio => ("lsinitcpio", &["-l"]),
            GeneratorKind::Dracut => ("lsinitrd", &[]),
            GeneratorKind::Booster => ("booster", &["ls"]),
            GeneratorKind::Other => return Ok(Contents::default()),
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

/// Returns the images that an unknown generator is likely to make: the existing ones with a common name, or else the most
/// common name.
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
        kind: ImageKind::Initramfs,
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

/// Returns the administrator's own command for each image. `%k` is the kernel's release, `%i` the image, `%p` its package.
fn administrators_commands(
    command: &str,
    kernel: &Kernel,
    images: &[&Image],
) -> Vec<GeneratorCommand> {
    let pkgbase = kernel.pkgbase.as_deref().unwrap_or_default();
    let of_image = |image: &str| {
        let word = |word: &str| {
            word.replace("%k", kernel.release.as_str()).replace("%i", image).replace("%p", pkgbase)
        };
        GeneratorCommand {
            words: command.split_whitespace().map(word).collect(),
            stdin: String::new(),
        }
    };
    let mut commands: Vec<GeneratorCommand> =
        images.iter().map(|image| of_image(&image.path.display().to_string())).collect();
    commands.dedup();
    commands
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::test_machine::test_machine;

    #[test]
    fn only_the_hook_of_mkinitcpio_follows_the_snapshot() {
        let ahead: Vec<&str> = GeneratorKind::KNOWN
            .into_iter()
            .filter(|it| it.hook_precedes_snapshot())
            .map(GeneratorKind::name)
            .collect();
        assert_eq!(ahead, ["dracut", "booster"]);
    }

    #[test]
    fn a_preset_is_read_once_for_all_images() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let preset = format!(
            "echo read >>{}\nALL_kver=/boot/vmlinuz-linux\nPRESETS=(default fallback)\n\
             default_image=/boot/a.img\nfallback_image=/boot/b.img\n",
            log.path().display()
        );
        let files =
            [("etc/mkinitcpio.d/linux.preset", preset.as_str()), ("usr/bin/mkinitcpio", "")];
        let (_root, machine, kernel) = test_machine("7.2", &files);
        let generator = Generator::detect(&machine).unwrap();
        assert_eq!(fs::read_to_string(log.path()).unwrap(), "", "detection reads no preset");
        let images = generator.images(&machine, &kernel);
        for image in &images {
            generator.configured_modules(&machine, &kernel, image).unwrap();
        }
        let commands = generator.commands(&machine, &kernel, &images.iter().collect::<Vec<_>>());
        assert_eq!((images.len(), commands.len()), (2, 1));
        assert_eq!(fs::read_to_string(log.path()).unwrap(), "read\n");
    }
}
