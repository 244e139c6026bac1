//! mkinitcpio(8): which images its presets make, and how it is called.

mod recipe;

use std::fs;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Machine};

use crate::find_files;
use crate::generators::command::Call;
use crate::generators::pacman_hook;
use crate::generators::shell_settings::Variables;
use crate::image::kernel_file;
use crate::image::{Image, Kind};
pub(crate) use recipe::wanted;

/// The pacman hook that regenerates images, and copies a new kernel to /boot.
pub(crate) const HOOK: &str = "90-mkinitcpio-install.hook";

/// One preset file, as mkinitcpio and its pacman hook read it.
#[derive(Debug)]
struct Preset {
    /// Its name, what `mkinitcpio -p` takes: for a packaged kernel, its `pkgbase`.
    name: String,
    variables: Variables,
}

impl Preset {
    /// All presets that can be read; what cannot is told in the log.
    fn all(machine: &Machine) -> Vec<Self> {
        let read = |file: PathBuf| {
            let name = file.file_stem()?.to_str()?.to_owned();
            let variables =
                Variables::read(machine, &[file]).map_err(|why| log::warn!("{why}")).ok()?;
            Some(Self { name, variables })
        };
        let dir = machine.trees.root.join("etc/mkinitcpio.d");
        find_files::with_suffix(&dir, ".preset").into_iter().filter_map(read).collect()
    }

    /// The preset that mkinitcpio's hook will make for a kernel that has none: the saved one, or one after its
    /// template. The hook that runs before an upgrade took it away with the old kernel. None if that hook does not
    /// run here.
    fn to_come(machine: &Machine, kernel: &Kernel) -> Option<Self> {
        let (root, name) = (&machine.trees.root, kernel.pkgbase.clone()?);
        if !pacman_hook::is_active(root, HOOK) {
            return None;
        }
        let saved = root.join(format!("etc/mkinitcpio.d/{name}.preset.pacsave"));
        let template = root.join("usr/share/mkinitcpio/hook.preset");
        let file = [saved, template].into_iter().find(|file| file.exists())?;
        let variables =
            Variables::read(machine, &[file]).map_err(|why| log::warn!("{why}")).ok()?;
        let variables = variables.replace("%PKGBASE%", &name);
        Some(Self { name, variables })
    }

    /// Whether it makes images for this kernel: it names its release, or is named as its package, or is named as nobody's
    /// and names a file that is this kernel. (The file that a package's preset names may be the one before.)
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
            kernel_file::release(&find_files::below(root, Path::new(file))).as_deref()
                == Some(release)
        };
        files.iter().any(is_it)
    }

    /// The kernels that its images are made for: paths of vmlinuz, or releases.
    fn kvers(&self) -> impl Iterator<Item = &str> {
        self.variables.list("PRESETS").iter().filter_map(|image| self.of_image(image, "kver"))
    }

    /// `<image>_<key>`, or else `ALL_<key>`.
    fn of_image(&self, image: &str, key: &str) -> Option<&str> {
        let own = self.variables.text(&format!("{image}_{key}"));
        own.or_else(|| self.variables.text(&format!("ALL_{key}")))
    }

    /// The images and UKIs that it makes.
    fn files(&self) -> Vec<(PathBuf, Kind)> {
        let images = self.variables.list("PRESETS").iter();
        let mut files: Vec<_> = images.flat_map(|image| self.files_of(image)).collect();
        files.sort();
        files.dedup();
        files
    }

    /// The image and the UKI that it makes under one of its names.
    fn files_of(&self, image: &str) -> impl Iterator<Item = (PathBuf, Kind)> + use<> {
        // mkinitcpio knows no ALL_image and no ALL_uki.
        let of = |key: &str| self.variables.text(&format!("{image}_{key}")).map(PathBuf::from);
        let uki = of("uki").or_else(|| of("efi_image"));
        let files =
            [of("image").map(|path| (path, Kind::Initramfs)), uki.map(|path| (path, Kind::Uki))];
        files.into_iter().flatten()
    }
}

/// Whether a package of this name has brought one of the kernels.
fn is_package(root: &Path, name: &str) -> bool {
    let modules = root.join("usr/lib/modules");
    let mut releases = find_files::names(&modules, Path::new(""));
    releases.any(|release| {
        let pkgbase = fs::read_to_string(modules.join(release).join("pkgbase"));
        pkgbase.is_ok_and(|pkgbase| pkgbase.trim() == name)
    })
}

fn presets_for(machine: &Machine, kernel: &Kernel) -> Vec<Preset> {
    let mut presets = Preset::all(machine);
    presets.retain(|preset| preset.is_for(&machine.trees.root, kernel));
    if presets.is_empty() {
        presets.extend(Preset::to_come(machine, kernel));
    }
    presets
}

/// The images of one kernel: those of its presets; a kernel that no preset serves has the one that
/// `mkinitcpio -k` is usually told to write, if it is there.
pub(crate) fn images(machine: &Machine, kernel: &Kernel) -> Vec<Image> {
    let image = |path: PathBuf, kind: Kind, preset: Option<&str>| Image {
        path,
        kind,
        kernel: kernel.release.clone(),
        preset: preset.map(str::to_owned),
    };
    let presets = presets_for(machine, kernel);
    if presets.is_empty() {
        let usual = PathBuf::from(format!("/boot/initramfs-{}.img", kernel.release));
        let there = find_files::below(&machine.trees.root, &usual).exists();
        return there.then(|| image(usual, Kind::Initramfs, None)).into_iter().collect();
    }
    let made = presets.iter().flat_map(|preset| {
        preset.files().into_iter().map(|(path, kind)| image(path, kind, Some(&preset.name)))
    });
    made.collect()
}

/// How these images, all of one kernel, are regenerated: by their presets. Where the kernel's copy or an image
/// itself is not there (an interrupted upgrade: mkinitcpio's hooks remove them before a transaction and bring them
/// back after it), only mkinitcpio's own hook can make them again.
pub(crate) fn calls(machine: &Machine, kernel: &Kernel, images: &[&Image]) -> Vec<Call> {
    let root = &machine.trees.root;
    let presets: Vec<Preset> = presets_for(machine, kernel)
        .into_iter()
        .filter(|preset| images.iter().any(|image| image.preset.as_ref() == Some(&preset.name)))
        .collect();
    let there = |path: &str| find_files::below(root, Path::new(path)).exists();
    let has_kernel =
        |preset: &Preset| preset.kvers().all(|kver| !kver.starts_with('/') || there(kver));
    let complete = images.iter().all(|image| image.below(root).exists());
    if kernel.pkgbase.is_some()
        && !(complete && presets.iter().all(has_kernel))
        && let Some(words) = pacman_hook::exec(root, HOOK)
    {
        let vmlinuz = format!("usr/lib/modules/{}/vmlinuz\n", kernel.release);
        return vec![Call { words, stdin: vmlinuz }];
    }
    let mut calls: Vec<Call> =
        presets.iter().map(|preset| Call::new(&["mkinitcpio", "-p", &preset.name])).collect();
    let alone = images.iter().filter(|image| image.preset.is_none());
    calls.extend(alone.map(|image| {
        let path = image.path.display().to_string();
        let option = match image.kind {
            Kind::Initramfs => "-g",
            Kind::Uki => "-U",
        };
        Call::new(&["mkinitcpio", "-k", kernel.release.as_str(), option, &path])
    }));
    calls
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use super::*;

    const RELEASE: &str = "7.2.13-arch1-1";

    fn test_machine(files: &[(&str, &str)]) -> (TestRoot, Machine, Kernel) {
        crate::test_machine::test_machine(RELEASE, files)
    }

    fn paths(images: &[Image]) -> Vec<&str> {
        images.iter().map(|image| image.path.to_str().unwrap()).collect()
    }

    fn lines(machine: &Machine, kernel: &Kernel) -> Vec<String> {
        let images = images(machine, kernel);
        let images: Vec<&Image> = images.iter().collect();
        calls(machine, kernel, &images).iter().map(Call::line).collect()
    }

    const PRESET: &str = "ALL_kver=/boot/vmlinuz-linux\n\
                          PRESETS=(default fallback)\ndefault_image=/boot/a.img\n\
                          fallback_uki=/efi/b.efi\n";
    const HOOK_FILE: &str = "usr/share/libalpm/hooks/90-mkinitcpio-install.hook";
    const HOOK_TEXT: &str = "[Trigger]\n[Action]\nExec = /script install\n";

    #[test]
    fn a_preset_names_images() {
        let (_root, machine, kernel) = test_machine(&[
            ("etc/mkinitcpio.d/linux.preset", PRESET),
            ("etc/mkinitcpio.d/linux-lts.preset", &PRESET.replace("linux", "linux-lts")),
            ("boot/a.img", ""),
            ("efi/b.efi", ""),
            ("boot/vmlinuz-linux", ""),
        ]);
        assert_eq!(paths(&images(&machine, &kernel)), ["/boot/a.img", "/efi/b.efi"]);
        assert_eq!(lines(&machine, &kernel), ["mkinitcpio -p linux"]);
    }

    #[test]
    fn what_the_hooks_took_away_their_hook_brings_back() {
        let (_root, machine, kernel) =
            test_machine(&[("etc/mkinitcpio.d/linux.preset", PRESET), (HOOK_FILE, HOOK_TEXT)]);
        let by_hook = [format!("echo usr/lib/modules/{RELEASE}/vmlinuz | /script install")];
        assert_eq!(lines(&machine, &kernel), by_hook);
        // An unchanged preset is taken away, too.
        let template = "ALL_kver=/boot/vmlinuz-%PKGBASE%\nPRESETS=(default)\n\
                        default_image=/boot/initramfs-%PKGBASE%.img\n";
        let template = ("usr/share/mkinitcpio/hook.preset", template);
        let (_root, machine, kernel) = test_machine(&[template, (HOOK_FILE, HOOK_TEXT)]);
        assert_eq!(paths(&images(&machine, &kernel)), ["/boot/initramfs-linux.img"]);
        assert_eq!(lines(&machine, &kernel), by_hook);
        let (_root, masked, kernel) = test_machine(&[template]);
        assert_eq!(images(&masked, &kernel), []);
    }

    #[test]
    fn a_preset_of_any_name_serves_the_kernel_that_its_file_is() {
        // The header of a kernel's file, and the text that it points to.
        let kernel = |release: &str| {
            let header = format!("{}HdrS{}\0\u{1}", "\0".repeat(0x202), "\0".repeat(8));
            format!("{header:\0<768}{release} (me@here) #1\0")
        };
        let preset = "ALL_kver=/boot/own\nPRESETS=(default)\ndefault_image=/boot/own.img\n";
        let (this, other) = (kernel(RELEASE), kernel("7.2.13-arch1-10"));
        let files = |kernel| {
            [("etc/mkinitcpio.d/mine.preset", preset), ("boot/own", kernel), ("boot/own.img", "")]
        };
        let (_root, machine, kernel) = test_machine(&files(&this));
        assert_eq!(paths(&images(&machine, &kernel)), ["/boot/own.img"]);
        assert_eq!(lines(&machine, &kernel), ["mkinitcpio -p mine"]);
        let (_root, machine, kernel) = test_machine(&files(&other));
        assert_eq!(images(&machine, &kernel), []);
    }

    #[test]
    fn a_kernel_without_a_preset_has_the_image_of_its_release() {
        let image = format!("boot/initramfs-{RELEASE}.img");
        let (_root, machine, kernel) = test_machine(&[(&image, "")]);
        assert_eq!(lines(&machine, &kernel), [format!("mkinitcpio -k {RELEASE} -g /{image}")]);
    }
}
