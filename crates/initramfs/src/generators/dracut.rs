//! dracut(8): where its images are, what its configuration asks for, and how it is called.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Machine};

use crate::find_files;
use crate::generators::command::Call;
use crate::generators::kernel_install;
use crate::generators::pacman_hook;
use crate::generators::shell_settings::Variables;
use crate::image::kmod_name::KmodName;
use crate::image::{Image, Kind};

/// The pacman hook of Arch's dracut packages that regenerates images, and copies a new kernel to /boot.
pub(crate) const HOOK: &str = "90-dracut-install.hook";

/// The variables of dracut.conf(5) that put a kernel module into an image.
const DRIVERS: [&str; 3] = ["add_drivers", "force_drivers", "drivers"];

/// The images of one kernel, as far as they are there: named after its package or its release in /boot, or unified
/// kernel images in an EFI partition. A kernel without any is to have the one in /boot if that is what the machine's
/// pacman hook makes.
pub(crate) fn images(machine: &Machine, kernel: &Kernel) -> Vec<Image> {
    let root = &machine.trees.root;
    let release = &kernel.release;
    let mut paths: Vec<(PathBuf, Kind)> = Vec::new();
    for name in kernel.pkgbase.iter().map(String::as_str).chain([release.as_str()]) {
        for end in [".img", "-fallback.img"] {
            paths.push((format!("/boot/initramfs-{name}{end}").into(), Kind::Initramfs));
        }
    }
    let releases: Vec<String> = find_files::names(root, Path::new("/usr/lib/modules")).collect();
    for top in kernel_install::PARTITIONS {
        let dir = PathBuf::from(format!("{top}/EFI/Linux"));
        let is_its = |name: &String| {
            name.strip_suffix(".efi").is_some_and(|stem| is_for(stem, kernel, &releases))
        };
        let unified = find_files::names(root, &dir).filter(is_its);
        paths.extend(unified.map(|name| (dir.join(name), Kind::Uki)));
    }
    let image = |(path, kind)| Image { path, kind, kernel: release.clone(), preset: None };
    let images = paths.into_iter().map(image);
    let images: Vec<Image> = images.filter(|image| image.below(root).is_file()).collect();
    match &kernel.pkgbase {
        Some(pkgbase)
            if images.is_empty()
                && kernel_install::images(machine, kernel).is_empty()
                && pacman_hook::is_active_and_names(root, HOOK, "/boot/initramfs-") =>
        {
            vec![image((format!("/boot/initramfs-{pkgbase}.img").into(), Kind::Initramfs))]
        }
        _ => images,
    }
}

/// Whether a unified kernel image of this name, without its `.efi`, is one of this kernel: it names the release, or the
/// package (`arch-linux` is not an image of `linux-lts`). Of the `releases` in the kernels' directory it names the
/// longest: `linux-6.12.1-rt5` is not an image of 6.12.1.
fn is_for(stem: &str, kernel: &Kernel, releases: &[String]) -> bool {
    let named = releases.iter().filter(|release| has_word(stem, release));
    if let Some(longest) = named.max_by_key(|release| release.len()) {
        return longest == kernel.release.as_str();
    }
    let Some(pkgbase) = &kernel.pkgbase else { return false };
    let stem = stem.strip_suffix("-fallback").unwrap_or(stem);
    stem == pkgbase
        || stem
            .strip_suffix(pkgbase.as_str())
            .is_some_and(|rest| rest.ends_with('-') && !rest.contains("linux"))
}

/// Whether `word` stands in `text` and is not a part of a longer number or name there.
fn has_word(text: &str, word: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || c == '.';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(goes_on) && !after.starts_with(goes_on)
    })
}

/// What the configuration puts into a kernel's images, each with the place that says so.
///
/// # Errors
/// A sentence if the configuration cannot be read.
pub(crate) fn wanted(
    machine: &Machine,
    kernel: &Kernel,
) -> Result<BTreeMap<KmodName, String>, String> {
    let root = &machine.trees.root;
    let mut configs = vec![root.join("etc/dracut.conf")];
    // A file in /etc replaces one of the same name in /usr (dracut.conf(5)).
    let own = find_files::with_suffix(&root.join("etc/dracut.conf.d"), ".conf");
    let shipped = find_files::with_suffix(&root.join("usr/lib/dracut/dracut.conf.d"), ".conf");
    let replaced = |file: &Path| own.iter().any(|own| own.file_name() == file.file_name());
    let mut dropped: Vec<PathBuf> = shipped.into_iter().filter(|file| !replaced(file)).collect();
    dropped.extend(own.clone());
    dropped.sort_by_key(|file| file.file_name().map(ToOwned::to_owned));
    configs.extend(dropped);
    configs.retain(|file| file.exists());
    // dracut's own scripts set this one before they read it, so that a configuration can tell kernels apart.
    let known = [("kernel", kernel.release.as_str())];
    let variables = Variables::read_knowing(machine, &configs, &known)?;
    let mut wanted = BTreeMap::new();
    for key in DRIVERS.into_iter().chain(["add_dracutmodules", "dracutmodules"]) {
        for word in variables.words(key) {
            wanted.entry(KmodName::new(word)).or_insert_with(|| format!("{key} of dracut.conf"));
        }
    }
    Ok(wanted)
}

/// How these images of one kernel are regenerated.
pub(crate) fn calls(machine: &Machine, kernel: &Kernel, images: &[&Image]) -> Vec<Call> {
    let root = &machine.trees.root;
    if let Some(call) = pacman_hook::call_for_new(root, HOOK, kernel, images) {
        return vec![call];
    }
    let release = kernel.release.as_str();
    let call = |image: &&Image| {
        let path = image.path.display().to_string();
        let mut words = vec!["dracut", "--force"];
        if image.kind == Kind::Uki {
            words.push("--uefi");
        }
        // A fallback image is one for any machine (Arch's hook scripts make it so).
        if path.contains("-fallback") {
            words.push("--no-hostonly");
        }
        words.extend(["--kver", release, &path]);
        Call::new(&words)
    };
    images.iter().map(call).collect()
}

#[cfg(test)]
mod tests {
    use dkms_engine::machine::Kernels;
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;

    /// A machine with these kernels, each of a package, and the EFI program `file`: which kernel's image it is.
    fn owners(kernels: &[(&str, &str)], file: &str) -> Vec<String> {
        let root = TestRoot::new();
        for (release, pkgbase) in kernels {
            root.kernel(release).pkgbase(pkgbase);
        }
        root.write(format!("efi/EFI/Linux/{file}"), "");
        let machine = Machine::for_hook(root.path());
        let all = Kernels::read(&machine.trees).unwrap().all;
        let has = |kernel: &&Kernel| !images(&machine, kernel).is_empty();
        all.iter().filter(has).map(|kernel| kernel.release.to_string()).collect()
    }

    #[rstest]
    #[case::by_release("linux-6.12.1-0b.efi", &["6.12.1"])]
    #[case::by_the_longest("linux-6.12.1-rt5.efi", &["6.12.1-rt5"])]
    #[case::of_one_that_is_gone("linux-6.12.10.efi", &[])]
    #[case::by_package("arch-linux.efi", &["6.12.1"])]
    #[case::fallback("arch-linux-fallback.efi", &["6.12.1"])]
    #[case::of_another_package("arch-linux-rt.efi", &["6.12.1-rt5"])]
    #[case::of_nobody("systemd-bootx64.efi", &[])]
    #[case::no_efi_program("linux-6.12.1.efi.old", &[])]
    fn a_unified_image_belongs_to_the_kernel_that_it_is_named_after(
        #[case] file: &str,
        #[case] want: &[&str],
    ) {
        let kernels = [("6.12.1", "linux"), ("6.12.1-rt5", "linux-rt")];
        assert_eq!(owners(&kernels, file), want);
    }
}
