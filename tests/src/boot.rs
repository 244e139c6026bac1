//! Boots a story's kernel and image in a machine of its own, and reads what that says on its serial console.

use std::time::Duration;

use crate::root::Root;
use crate::run::{Completed, start};

/// A boot takes some seconds on an idle machine, even without virtualisation by hardware.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

impl Root {
    /// Boots `/boot/vmlinuz-PKGBASE` with `/boot/initramfs-PKGBASE.img` in QEMU, with further words on the kernel's command
    /// line. Ends when the machine powers off or reboots; the output is what its console showed, in plain lines.
    #[track_caller]
    pub fn boot(&self, pkgbase: &str, words: &str) -> Completed {
        let file = |name: &str| self.path(&format!("boot/{name}")).display().to_string();
        let kernel = file(&format!("vmlinuz-{pkgbase}"));
        let image = file(&format!("initramfs-{pkgbase}.img"));
        // A panic reboots at once, which ends it too. Whether timers work is tried by counting how often they fire in a
        // moment: on a busy host they do not often enough, and the kernel gives up.
        let line = format!("console=ttyS0 quiet panic=-1 no_timer_check {words}");
        let mut args =
            vec!["-accel", "tcg", "-cpu", "max", "-m", "512", "-nographic", "-no-reboot"];
        args.extend(["-nic", "none", "-kernel", &kernel, "-initrd", &image, "-append", &line]);
        let mut output = start("qemu-system-x86_64", &args).within(PATIENCE).finish();
        output.text = output.text.replace('\r', "");
        output
    }
}
