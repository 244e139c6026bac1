//! dracut(8): where its images are, what its configuration asks for, and how it is called.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dkms_engine::kernels::Kernel;
use dkms_engine::site::Site;

use crate::call::Call;
use crate::files;
use crate::image::{Image, Kind};
use crate::kmod_name::KmodName;
use crate::pacman_hook;
use crate::shell::Variables;

/// The pacman hook of Arch's dracut packages that regenerates images, and copies a new kernel to /boot.
pub(crate) const HOOK: &str = "90-dracut-install.hook";

/// The variables of dracut.conf(5) that put a kernel module into an image.
const DRIVERS: [&str; 3] = ["add_drivers", "force_drivers", "drivers"];

/// The images of one kernel, as far as they are there: named after its package or its release in /boot, in the
/// layout of kernel-install(8), or unified kernel images in an EFI partition. A kernel without any is to have the one
/// in /boot if that is what the machine's pacman hook makes.
pub(crate) fn images(site: &Site, kernel: &Kernel) -> Vec<Image> {
    let root = &site.trees.root;
    let release = &kernel.release;
    let mut paths: Vec<(PathBuf, Kind)> = Vec::new();
    for name in kernel.pkgbase.iter().map(String::as_str).chain([release.as_str()]) {
        for end in [".img", "-fallback.img"] {
            paths.push((format!("/boot/initramfs-{name}{end}").into(), Kind::Initramfs));
        }
    }
    let machine = fs::read_to_string(root.join("etc/machine-id")).unwrap_or_default();
    for top in ["/boot", "/efi", "/boot/efi"] {
        if !machine.trim().is_empty() {
            let entry = format!("{top}/{}/{release}", machine.trim());
            paths.extend(
                ["initrd", "initramfs.img"]
                    .map(|file| (format!("{entry}/{file}").into(), Kind::Initramfs)),
            );
        }
        let dir = PathBuf::from(format!("{top}/EFI/Linux"));
        for file in files::with_suffix(&files::below(root, &dir), ".efi") {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if is_for(&name, kernel) {
                paths.push((dir.join(name), Kind::Uki));
            }
        }
    }
    let image = |(path, kind)| Image { path, kind, kernel: release.clone(), preset: None };
    let images = paths.into_iter().map(image);
    let images: Vec<Image> = images.filter(|image| image.below(root).is_file()).collect();
    match &kernel.pkgbase {
        Some(pkgbase)
            if images.is_empty()
                && pacman_hook::is_active_and_names(root, HOOK, "/boot/initramfs-") =>
        {
            vec![image((format!("/boot/initramfs-{pkgbase}.img").into(), Kind::Initramfs))]
        }
        _ => images,
    }
}

/// Whether the name of a unified kernel image is that of this kernel: it holds the release, or the package's name as
/// a word of its own (`arch-linux.efi` is not that of `linux-lts`).
fn is_for(name: &str, kernel: &Kernel) -> bool {
    let stem = name.strip_suffix(".efi").unwrap_or(name);
    if stem.contains(kernel.release.as_str()) {
        return true;
    }
    let Some(pkgbase) = &kernel.pkgbase else { return false };
    let stem = stem.strip_suffix("-fallback").unwrap_or(stem);
    stem == pkgbase
        || stem
            .strip_suffix(pkgbase.as_str())
            .is_some_and(|rest| rest.ends_with('-') && !rest.contains("linux"))
}

/// What the configuration puts into a kernel's images, each with the place that says so.
///
/// # Errors
/// A sentence if the configuration cannot be read.
pub(crate) fn wanted(site: &Site, kernel: &Kernel) -> Result<BTreeMap<KmodName, String>, String> {
    let root = &site.trees.root;
    let mut configs = vec![root.join("etc/dracut.conf")];
    // A file in /etc replaces one of the same name in /usr (dracut.conf(5)).
    let own = files::with_suffix(&root.join("etc/dracut.conf.d"), ".conf");
    let shipped = files::with_suffix(&root.join("usr/lib/dracut/dracut.conf.d"), ".conf");
    let replaced = |file: &Path| own.iter().any(|own| own.file_name() == file.file_name());
    let mut dropped: Vec<PathBuf> = shipped.into_iter().filter(|file| !replaced(file)).collect();
    dropped.extend(own.clone());
    dropped.sort_by_key(|file| file.file_name().map(ToOwned::to_owned));
    configs.extend(dropped);
    configs.retain(|file| file.exists());
    // dracut's own scripts set this one before they read it, so that a configuration can tell kernels apart.
    let known = [("kernel", kernel.release.as_str())];
    let variables = Variables::read_knowing(site, &configs, &known)?;
    let mut wanted = BTreeMap::new();
    for key in DRIVERS.into_iter().chain(["add_dracutmodules", "dracutmodules"]) {
        for word in variables.words(key) {
            wanted.entry(KmodName::new(word)).or_insert_with(|| format!("{key} of dracut.conf"));
        }
    }
    Ok(wanted)
}

/// How these images of one kernel are regenerated.
pub(crate) fn calls(site: &Site, kernel: &Kernel, images: &[&Image]) -> Vec<Call> {
    let root = &site.trees.root;
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
