//! kernel-install(8): the images in its layouts, and the command that regenerates them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::os::paths;

use super::command::GeneratorCommand;
use crate::find_files;
use crate::image::{Image, ImageKind};

/// Possible mount points of the partition that the boot loader reads.
pub(super) const PARTITIONS: [&str; 3] = ["/efi", "/boot", "/boot/efi"];

/// The directory for unified kernel images on each of the [`PARTITIONS`].
const UNIFIED: &str = "EFI/Linux";

/// Returns the existing images of a kernel in the layouts of kernel-install.
pub(super) fn images(machine: &Machine, kernel: &Kernel) -> Vec<Image> {
    let (root, release) = (&machine.trees.root, kernel.release.as_str());
    let tokens = tokens(root);
    let dirs_on = |top: &&str| {
        let entries =
            tokens.iter().map(move |token| PathBuf::from(format!("{top}/{token}/{release}")));
        let dirs: Vec<PathBuf> = entries.chain([Path::new(top).join(UNIFIED)]).collect();
        dirs
    };
    let images_in = |dir: PathBuf| {
        let kind = if dir.ends_with(UNIFIED) { ImageKind::Uki } else { ImageKind::Initramfs };
        let image = |name: String| Image::complete(dir.join(name), kind, &kernel.release);
        let images = find_files::names(root, &dir).map(image);
        images.filter(|image| is_image(&tokens, release, &image.path)).collect::<Vec<_>>()
    };
    PARTITIONS.iter().flat_map(dirs_on).flat_map(images_in).collect()
}

/// Returns true if kernel-install makes the image at `path` for `kernel`. The file need not exist.
pub(super) fn makes(machine: &Machine, kernel: &Kernel, path: &Path) -> bool {
    is_image(&tokens(&machine.trees.root), kernel.release.as_str(), path)
}

/// Returns true if `path` is an image of the kernel `release` in one of kernel-install's layouts.
///
/// The layout `bls` contains `<token>/<release>/initrd` and, on EndeavourOS, `initrd-fallback`. The
/// layout `uki` contains `EFI/Linux/<token>-<release>.efi`.
fn is_image(tokens: &[String], release: &str, path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    let (Some(dir), Some(name)) = (path.parent(), name) else { return false };
    let fits = |top: &Path, token: &String| {
        let is_in_entry = dir == top.join(token).join(release) && name.starts_with("initr");
        let is_named_so = is_unified(name, &format!("{token}-{release}"));
        is_in_entry || (dir == top.join(UNIFIED) && is_named_so)
    };
    PARTITIONS.iter().any(|top| tokens.iter().any(|token| fits(Path::new(top), token)))
}

/// Returns the command that regenerates a kernel's boot entry, including its images, command line
/// and signature.
///
/// Returns `None` if kernel-install or the kernel is missing. Also returns `None` if boot counting
/// is enabled, because the new image would have another name.
pub(super) fn command(machine: &Machine, kernel: &Kernel) -> Option<GeneratorCommand> {
    let root = &machine.trees.root;
    let vmlinuz = format!("/usr/lib/modules/{}/vmlinuz", kernel.release);
    let exists = |path: &str| paths::below(root, Path::new(path)).exists();
    let can = exists("/usr/bin/kernel-install") && exists(&vmlinuz) && !exists("/etc/kernel/tries");
    can.then(|| {
        GeneratorCommand::new(&["kernel-install", "add", kernel.release.as_str(), &vmlinuz])
    })
}

/// Returns the entry tokens of the machine, from `/etc/kernel/entry-token` and `/etc/machine-id`.
fn tokens(root: &Path) -> Vec<String> {
    let files = ["etc/kernel/entry-token", "etc/machine-id"];
    let texts = files.iter().filter_map(|file| fs::read_to_string(root.join(file)).ok());
    let names = texts.map(|text| text.trim().to_owned());
    names.filter(|name| !name.is_empty() && !name.contains('/') && name != "..").collect()
}

/// Returns true if `file` is `<name>.efi`, with or without a boot counter (`+3-1`) after the name.
fn is_unified(file: &str, name: &str) -> bool {
    let rest = file.strip_suffix(".efi").and_then(|stem| stem.strip_prefix(name));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use super::*;

    /// Returns a machine with the kernel 7.2, the machine id `0b` and empty `files`.
    fn test_machine(files: &[&str]) -> (TestRoot, Machine, Kernel) {
        let files = files.iter().map(|file| (*file, "")).chain([("etc/machine-id", "0b\n")]);
        crate::test_machine::test_machine("7.2", &files.collect::<Vec<_>>())
    }

    fn found(machine: &Machine, kernel: &Kernel) -> Vec<String> {
        images(machine, kernel).iter().map(|image| image.path.display().to_string()).collect()
    }

    #[test]
    fn finds_images_in_both_layouts_by_token() {
        let (root, machine, kernel) = test_machine(&[
            "efi/0b/7.2/linux",
            "efi/0b/7.2/initrd",
            "efi/0b/7.2/initrd-fallback",
            "efi/0b/7.2.1/initrd",
            "efi/other/7.2/initrd",
            "boot/EFI/Linux/0b-7.2.efi",
            "boot/EFI/Linux/0b-7.2+3-1.efi",
            "boot/EFI/Linux/0b-7.2.1.efi",
            "boot/EFI/Linux/linux-7.2.efi",
        ]);
        assert_eq!(
            found(&machine, &kernel),
            [
                "/efi/0b/7.2/initrd",
                "/efi/0b/7.2/initrd-fallback",
                "/boot/EFI/Linux/0b-7.2+3-1.efi",
                "/boot/EFI/Linux/0b-7.2.efi",
            ]
        );
        let kinds: Vec<ImageKind> =
            images(&machine, &kernel).iter().map(|image| image.kind).collect();
        assert_eq!(
            kinds,
            [ImageKind::Initramfs, ImageKind::Initramfs, ImageKind::Uki, ImageKind::Uki]
        );

        root.write("etc/kernel/entry-token", "other");
        assert!(found(&machine, &kernel).contains(&"/efi/other/7.2/initrd".to_owned()));
        root.write("etc/kernel/entry-token", "../other");
        assert_eq!(found(&machine, &kernel).len(), 4);
    }

    #[test]
    fn is_used_only_if_installed_and_without_boot_counting() {
        let (root, machine, kernel) = test_machine(&["efi/0b/7.2/initrd"]);
        assert_eq!(command(&machine, &kernel), None);
        root.write("usr/bin/kernel-install", "");
        let line = command(&machine, &kernel).unwrap().line();
        assert_eq!(line, "kernel-install add 7.2 /usr/lib/modules/7.2/vmlinuz");
        root.write("etc/kernel/tries", "3");
        assert_eq!(command(&machine, &kernel), None);
    }
}
