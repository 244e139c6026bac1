//! Boots the kernel and the image of a story in QEMU and captures the serial console.

use std::time::Duration;

use crate::root::Root;
use crate::run::{Completed, start};

/// The time limit of a boot. On an idle machine it takes seconds, even without KVM.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

impl Root {
    /// Boots `/boot/vmlinuz-PKGBASE` with `/boot/initramfs-PKGBASE.img` in QEMU and waits until
    /// the machine powers off or reboots.
    ///
    /// `words` are appended to the kernel command line. The output is the console's, without
    /// carriage returns.
    #[track_caller]
    pub fn boot(&self, pkgbase: &str, words: &str) -> Completed {
        let file = |name: &str| self.path(&format!("boot/{name}")).display().to_string();
        let kernel = file(&format!("vmlinuz-{pkgbase}"));
        let image = file(&format!("initramfs-{pkgbase}.img"));
        // With `panic=-1` a panic reboots, which ends QEMU. `no_timer_check` skips a test of the
        // timer that fails if the host is busy.
        let line = format!("console=ttyS0 quiet panic=-1 no_timer_check {words}");
        let mut args =
            vec!["-accel", "tcg", "-cpu", "max", "-m", "512", "-nographic", "-no-reboot"];
        args.extend(["-nic", "none", "-kernel", &kernel, "-initrd", &image, "-append", &line]);
        let mut output = start("qemu-system-x86_64", &args).within(PATIENCE).finish();
        output.text = output.text.replace('\r', "");
        output
    }
}
