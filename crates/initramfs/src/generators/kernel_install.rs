//! kernel-install(8): the images in its layouts, and the command that makes them again.

use std::fs;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::os::paths;

use super::command::GeneratorCommand;
use crate::find_files;
use crate::image::{Image, ImageKind};

/// Possible mount points of the partition that the boot loader reads.
pub(super) const PARTITIONS: [&str; 3] = ["/efi", "/boot", "/boot/efi"];

/// Returns the existing images of one kernel in the layouts `bls` (`<token>/<release>/initrd`, and EndeavourOS's `initrd-fallback` beside
/// it) and `uki` (`EFI/Linux/<token>-<release>.efi`).
pub(super) fn images(machine: &Machine, kernel: &Kernel) -> Vec<Image> {
    let (root, release) = (&machine.trees.root, kernel.release.as_str());
    let tokens = tokens(root);
    let image = |path, kind| Image { path, kind, kernel: kernel.release.clone(), preset: None };
    let mut images = Vec::new();
    for top in PARTITIONS {
        for token in &tokens {
            let entry = PathBuf::from(format!("{top}/{token}/{release}"));
            let initrds = find_files::names(root, &entry).filter(|name| name.starts_with("initr"));
            images.extend(initrds.map(|name| image(entry.join(name), ImageKind::Initramfs)));
        }
        let dir = PathBuf::from(format!("{top}/EFI/Linux"));
        let is_its = |name: &String| {
            tokens.iter().any(|token| is_unified(name, &format!("{token}-{release}")))
        };
        images.extend(
            find_files::names(root, &dir)
                .filter(is_its)
                .map(|name| image(dir.join(name), ImageKind::Uki)),
        );
    }
    images
}

/// Returns the command that makes a kernel's entry again, with the generators, the command line and the signature that the
/// machine is set up for. Returns `None` without that program or the kernel, and where boots are counted: there it would
/// give the image another name.
pub(super) fn command(machine: &Machine, kernel: &Kernel) -> Option<GeneratorCommand> {
    let root = &machine.trees.root;
    let vmlinuz = format!("/usr/lib/modules/{}/vmlinuz", kernel.release);
    let there = |path: &str| paths::below(root, Path::new(path)).exists();
    let can = there("/usr/bin/kernel-install") && there(&vmlinuz) && !there("/etc/kernel/tries");
    can.then(|| {
        GeneratorCommand::new(&["kernel-install", "add", kernel.release.as_str(), &vmlinuz])
    })
}

/// Returns the prefixes of the machine's entries: its id, or the text chosen in its place.
fn tokens(root: &Path) -> Vec<String> {
    let files = ["etc/kernel/entry-token", "etc/machine-id"];
    let texts = files.iter().filter_map(|file| fs::read_to_string(root.join(file)).ok());
    let names = texts.map(|text| text.trim().to_owned());
    names.filter(|name| !name.is_empty() && !name.contains('/') && name != "..").collect()
}

/// Returns true if a unified kernel image has this name, with or without a count of boots (`+3-1`).
fn is_unified(file: &str, name: &str) -> bool {
    let rest = file.strip_suffix(".efi").and_then(|stem| stem.strip_prefix(name));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use super::*;

    /// A machine with the kernel 7.2 and these files.
    fn test_machine(files: &[&str]) -> (TestRoot, Machine, Kernel) {
        let files = files.iter().map(|file| (*file, "")).chain([("etc/machine-id", "0b\n")]);
        crate::test_machine::test_machine("7.2", &files.collect::<Vec<_>>())
    }

    fn found(machine: &Machine, kernel: &Kernel) -> Vec<String> {
        images(machine, kernel).iter().map(|image| image.path.display().to_string()).collect()
    }

    #[test]
    fn both_layouts_are_known_by_the_machines_token() {
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
    fn it_is_called_where_it_writes_what_is_there() {
        let (root, machine, kernel) = test_machine(&["efi/0b/7.2/initrd"]);
        assert_eq!(command(&machine, &kernel), None);
        root.write("usr/bin/kernel-install", "");
        let line = command(&machine, &kernel).unwrap().line();
        assert_eq!(line, "kernel-install add 7.2 /usr/lib/modules/7.2/vmlinuz");
        root.write("etc/kernel/tries", "3");
        assert_eq!(command(&machine, &kernel), None);
    }
}
