//! mkinitcpio's presets: which kernel each is for, and the images that it makes.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::os::paths;

use super::super::pacman_hook;
use super::super::shell_settings::{self, ShellVariables};
use crate::find_files;
use crate::image::{ImageKind, release_of_kernel_file};

/// The pacman hook that regenerates images, and copies a new kernel to /boot.
pub(crate) const HOOK: &str = "90-mkinitcpio-install.hook";

/// One preset file, as mkinitcpio and its pacman hook read it.
#[derive(Debug, Clone)]
pub(crate) struct Preset {
    /// The name for `mkinitcpio -p`. For a packaged kernel it is the `pkgbase`.
    pub(super) name: String,
    pub(super) variables: ShellVariables,
}

impl Preset {
    /// Reads all presets. Those that cannot be read are skipped with a warning.
    pub(crate) fn all(machine: &Machine) -> Vec<Self> {
        let mut reader = shell_settings::reader(machine);
        let read = |file: PathBuf| {
            let name = file.file_stem()?.to_str()?.to_owned();
            let variables = ShellVariables::read(&mut reader, &[file]);
            let variables = variables.map_err(|why| log::warn!("{why}")).ok()?;
            Some(Self { name, variables })
        };
        let dir = machine.trees.root.join("etc/mkinitcpio.d");
        find_files::with_suffix(&dir, ".preset").into_iter().filter_map(read).collect()
    }

    /// Reads the preset that mkinitcpio's hook will make for a kernel without one: the saved preset, or the template. The
    /// hook that runs before an upgrade has removed the preset with the old kernel. Returns `None` if the hook is not
    /// active, or if there is a preset, readable or not.
    fn to_come(machine: &Machine, kernel: &Kernel) -> Option<Self> {
        let (root, name) = (&machine.trees.root, kernel.pkgbase.clone()?);
        let present = root.join(format!("etc/mkinitcpio.d/{name}.preset"));
        if !pacman_hook::is_active(root, HOOK) || present.is_symlink() || present.exists() {
            return None;
        }
        let saved = root.join(format!("etc/mkinitcpio.d/{name}.preset.pacsave"));
        let template = root.join("usr/share/mkinitcpio/hook.preset");
        let file = [saved, template].into_iter().find(|file| file.exists())?;
        let variables = ShellVariables::read(&mut shell_settings::reader(machine), &[file]);
        let variables = variables.map_err(|why| log::warn!("{why}")).ok()?;
        let variables = variables.replace("%PKGBASE%", &name);
        Some(Self { name, variables })
    }

    /// Returns true if it makes images for this kernel: it names the kernel's release, has the name of its package, or has
    /// the name of no package and names a file that is this kernel. (The file that a package's preset names may be the
    /// previous kernel.)
    fn is_for(&self, root: &Path, kernel: &Kernel) -> bool {
        let release = kernel.release.as_str();
        let (files, releases): (Vec<&str>, Vec<&str>) =
            self.kvers().partition(|kver| kver.starts_with('/'));
        if !releases.is_empty() {
            return releases.contains(&release);
        }
        if is_package(root, &self.name) {
            return kernel.pkgbase.as_ref() == Some(&self.name);
        }
        let is_it = |file: &&str| {
            release_of_kernel_file(&paths::below(root, Path::new(file))).as_deref() == Some(release)
        };
        files.iter().any(is_it)
    }

    /// Returns the kernels that its images are made for: paths of vmlinuz, or releases.
    pub(super) fn kvers(&self) -> impl Iterator<Item = &str> {
        self.variables.list("PRESETS").iter().filter_map(|image| self.of_image(image, "kver"))
    }

    /// Returns `<image>_<key>`, or else `ALL_<key>`.
    pub(super) fn of_image(&self, image: &str, key: &str) -> Option<&str> {
        let own = self.variables.text(&format!("{image}_{key}"));
        own.or_else(|| self.variables.text(&format!("ALL_{key}")))
    }

    /// Returns the images and UKIs that it makes.
    pub(super) fn files(&self) -> Vec<(PathBuf, ImageKind)> {
        let images = self.variables.list("PRESETS").iter();
        let mut files: Vec<_> = images.flat_map(|image| self.files_of(image)).collect();
        files.sort();
        files.dedup();
        files
    }

    /// Returns the image and the UKI that it makes under one of its names.
    pub(super) fn files_of(
        &self,
        image: &str,
    ) -> impl Iterator<Item = (PathBuf, ImageKind)> + use<> {
        // mkinitcpio knows no ALL_image and no ALL_uki.
        let of = |key: &str| self.variables.text(&format!("{image}_{key}")).map(PathBuf::from);
        let uki = of("uki").or_else(|| of("efi_image"));
        let files = [
            of("image").map(|path| (path, ImageKind::Initramfs)),
            uki.map(|path| (path, ImageKind::Uki)),
        ];
        files.into_iter().flatten()
    }
}

/// Returns true if one of the kernels is from a package of this name.
fn is_package(root: &Path, name: &str) -> bool {
    let modules = root.join("usr/lib/modules");
    let mut releases = find_files::names(&modules, Path::new(""));
    releases.any(|release| {
        let pkgbase = fs::read_to_string(modules.join(release).join("pkgbase"));
        pkgbase.is_ok_and(|pkgbase| pkgbase.trim() == name)
    })
}

/// Returns the presets of `all` that are for a kernel, or else the one that mkinitcpio's hook will make for it.
pub(super) fn presets_for<'a>(
    machine: &Machine,
    kernel: &Kernel,
    all: &'a [Preset],
) -> Vec<Cow<'a, Preset>> {
    let is_for = |preset: &&Preset| preset.is_for(&machine.trees.root, kernel);
    let mut presets: Vec<_> = all.iter().filter(is_for).map(Cow::Borrowed).collect();
    if presets.is_empty() {
        presets.extend(Preset::to_come(machine, kernel).map(Cow::Owned));
    }
    presets
}
