//! Paths and functions that all stories about images share.

use stories::Root;

use crate::mkinitcpio::STOCK;

/// The image of `linux`.
pub(crate) const IMAGE: &str = "boot/initramfs-linux.img";

/// Masks a hook with a symlink to /dev/null, as administrators do.
///
/// Names mkinitcpio in the settings if the hook is mkinitcpio's, since the images of a generator
/// with a masked hook are otherwise left alone.
pub(crate) fn mask(root: &Root, hook: &str) {
    if hook == STOCK {
        name_generator(root, "mkinitcpio");
    }
    root.shell(&format!("ln -s /dev/null /etc/pacman.d/hooks/{hook}.hook")).ok();
}

/// Names the generator in the settings, so that its images are ours even if its hook is masked.
pub(crate) fn name_generator(root: &Root, name: &str) {
    root.write("etc/dkms/alpm-dkms.toml", &format!("[initramfs]\ngenerator = \"{name}\"\n"));
}

/// Overrides mkinitcpio's hook with `[initramfs] precise`.
#[track_caller]
pub(crate) fn set_precise(root: &Root) {
    root.write("etc/dkms/alpm-dkms.toml", "[initramfs]\nprecise = true\n");
    root.dkms(&["initramfs"]).ok().has("[initramfs] precise is in effect");
}

pub(crate) fn unmask(root: &Root, hook: &str) {
    root.shell(&format!("rm /etc/pacman.d/hooks/{hook}.hook")).ok();
}

/// Returns the images generated since the last call, in order.
pub(crate) fn new_images(root: &Root) -> Vec<String> {
    let log = "var/log/images.log";
    let made = if root.exists(log) { root.read(log) } else { String::new() };
    root.write(log, "");
    made.lines().map(str::to_owned).collect()
}

/// Returns the summary line of a kernel.
pub(crate) fn summary_line(release: &str) -> String {
    format!("{release} (linux): 1 module installed, zfs in /{IMAGE}")
}
