//! mkinitcpio's presets, and the kernels and images that presets name.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::names::KernelRelease;
use dkms_engine::os::paths;

use super::super::pacman_hook::HookInEffect;
use super::super::shell_settings::{self, ShellVariables};
use crate::find_files;
use crate::image::{Image, ImageKind, release_of_kernel_file};

/// mkinitcpio's pacman hook, which regenerates images and copies a new kernel to /boot.
pub(crate) const HOOK: &str = "90-mkinitcpio-install.hook";

/// The variables of a preset file in /etc/mkinitcpio.d.
#[derive(Debug, Clone)]
pub(crate) struct Preset {
    /// The name to pass to `mkinitcpio -p`. The preset of a packaged kernel is named after its
    /// `pkgbase`.
    pub(super) name: String,
    pub(super) variables: ShellVariables,
}

impl Preset {
    /// Reads all presets. Skips presets that cannot be read, and logs a warning for each.
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

    /// Returns the preset that mkinitcpio's pacman hook will create for a kernel without one. The
    /// hook creates it from a saved preset or from the template.
    ///
    /// During an upgrade, another of mkinitcpio's hooks has already removed the preset along with
    /// the old kernel. Returns `None` if the preset exists, even if it is unreadable, or if the
    /// hook is masked or overridden by another program.
    fn created_by_hook(machine: &Machine, kernel: &Kernel) -> Option<Self> {
        let (root, name) = (&machine.trees.root, kernel.pkgbase.clone()?);
        let present = root.join(format!("etc/mkinitcpio.d/{name}.preset"));
        let creates = HookInEffect::of(root, HOOK) == HookInEffect::Stock;
        if !creates || present.is_symlink() || present.exists() {
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

    /// Returns true if the preset is for `kernel`.
    ///
    /// A preset that names releases is for the kernels with these releases. Otherwise, a preset
    /// named after an installed kernel package is for that package's kernel, even if the preset's
    /// kernel file still contains the previous kernel. Any other preset is for the kernel in its
    /// kernel file.
    fn is_for(&self, root: &Path, kernel: &Kernel) -> bool {
        let release = kernel.release.as_str();
        let mut releases = self.kvers().filter(|kver| !kver.starts_with('/')).peekable();
        if releases.peek().is_some() {
            return releases.any(|named| named == release);
        }
        if kernel.package.as_ref() == Some(&self.name) {
            return true;
        }
        if is_package(root, &self.name) {
            return false;
        }
        let release_in = |file| release_of_kernel_file(&paths::below(root, file));
        self.kernel_files().any(|file| release_in(file).as_deref() == Some(release))
    }

    /// Returns the kernel files that the preset names, as paths on the machine that boots them.
    pub(super) fn kernel_files(&self) -> impl Iterator<Item = &Path> {
        self.kvers().filter(|kver| kver.starts_with('/')).map(Path::new)
    }

    /// Returns the kernels that the preset names: paths of kernel files, or releases.
    fn kvers(&self) -> impl Iterator<Item = &str> {
        self.variables.list("PRESETS").iter().filter_map(|image| self.of_image(image, "kver"))
    }

    /// Returns the value of `<image>_<key>`. If it is unset, returns the value of `ALL_<key>`.
    pub(super) fn of_image(&self, image: &str, key: &str) -> Option<&str> {
        let own = self.variables.text(&format!("{image}_{key}"));
        own.or_else(|| self.variables.text(&format!("ALL_{key}")))
    }

    /// Returns all images and UKIs that the preset names, for the kernel `release`, sorted by path.
    pub(super) fn images(&self, release: &KernelRelease) -> Vec<Image> {
        let mut images = Vec::new();
        for name in self.variables.list("PRESETS") {
            let kver = self.of_image(name, "kver").filter(|kver| kver.starts_with('/'));
            images.extend(self.files_of(name).map(|(path, kind)| Image {
                path,
                kind,
                kernel: release.clone(),
                preset: Some(self.name.clone()),
                kernel_file: kver.filter(|_| kind == ImageKind::Initramfs).map(PathBuf::from),
            }));
        }
        images.sort();
        images.dedup_by(|a, b| a.path == b.path);
        images
    }

    /// Returns the paths of the initramfs image and the UKI of the entry `image` in `PRESETS`.
    pub(super) fn files_of(
        &self,
        image: &str,
    ) -> impl Iterator<Item = (PathBuf, ImageKind)> + use<> {
        // mkinitcpio does not read ALL_image and ALL_uki.
        let of = |key: &str| self.variables.text(&format!("{image}_{key}")).map(PathBuf::from);
        let uki = of("uki").or_else(|| of("efi_image"));
        let files = [
            of("image").map(|path| (path, ImageKind::Initramfs)),
            uki.map(|path| (path, ImageKind::Uki)),
        ];
        files.into_iter().flatten()
    }
}

/// Returns true if `name` is the package of an installed kernel.
fn is_package(root: &Path, name: &str) -> bool {
    let modules = root.join("usr/lib/modules");
    let mut releases = find_files::names(&modules, Path::new(""));
    releases.any(|release| {
        let pkgbase = fs::read_to_string(modules.join(release).join("pkgbase"));
        pkgbase.is_ok_and(|pkgbase| pkgbase.trim() == name)
    })
}

/// Returns the presets in `all` that are for `kernel`. If there are none, returns the preset that
/// mkinitcpio's pacman hook will create for the kernel, if any.
pub(super) fn presets_for<'a>(
    machine: &Machine,
    kernel: &Kernel,
    all: &'a [Preset],
) -> Vec<Cow<'a, Preset>> {
    let is_for = |preset: &&Preset| preset.is_for(&machine.trees.root, kernel);
    let mut presets: Vec<_> = all.iter().filter(is_for).map(Cow::Borrowed).collect();
    if presets.is_empty() {
        presets.extend(Preset::created_by_hook(machine, kernel).map(Cow::Owned));
    }
    presets
}
