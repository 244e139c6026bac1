//! Around the hook that regenerates images (mkinitcpio's, or `--dracut`, `--booster`): before it, notes how they are;
//! with `--verify`, after it, sees to it that they hold the modules that changed.

use std::process::ExitCode;

use alpm_hook::images;
use dkms_initramfs::generator::Generator;

fn main() -> ExitCode {
    let flags = ["--booster", "--dracut", "--verify"];
    alpm_hook::run("mkinitcpio-dkms", &flags, |call, _| match call.flag {
        Some("--verify") => images::verify(call),
        Some("--booster") => images::note(call, Generator::Booster),
        Some("--dracut") => images::note(call, Generator::Dracut),
        _ => images::note(call, Generator::Mkinitcpio),
    })
}
