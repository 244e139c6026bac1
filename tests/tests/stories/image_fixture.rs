//! Paths and assertions that all stories about images share.

use stories::Root;

/// The image of the package `linux`.
pub(crate) const IMAGE: &str = "boot/initramfs-linux.img";

/// Masks a hook, as admins do.
pub(crate) fn mask(root: &Root, hook: &str) {
    root.shell(&format!("ln -s /dev/null /etc/pacman.d/hooks/{hook}.hook")).ok();
}

pub(crate) fn unmask(root: &Root, hook: &str) {
    root.shell(&format!("rm /etc/pacman.d/hooks/{hook}.hook")).ok();
}

/// The images that were made since the last call, in order.
pub(crate) fn made(root: &Root) -> Vec<String> {
    let log = "var/log/images.log";
    let made = if root.exists(log) { root.read(log) } else { String::new() };
    root.write(log, "");
    made.lines().map(str::to_owned).collect()
}

/// The final line on a kernel.
pub(crate) fn kernel_line(release: &str) -> String {
    format!("{release} (linux): 1 module installed, zfs in /{IMAGE}")
}
