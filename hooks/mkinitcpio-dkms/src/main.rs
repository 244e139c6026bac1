//! Around the hook that regenerates images: before it, notes how they are; with `--verify`, after it, sees to it that
//! they hold the modules that changed; with `--precise`, in its place: calls it, but not for modules alone.

use std::process::ExitCode;

use alpm_hook::images;

fn main() -> ExitCode {
    alpm_hook::run("mkinitcpio-dkms", &["--precise", "--verify"], |call, targets| match call.flag {
        Some("--verify") => images::verify(call),
        Some("--precise") => images::precise(call, targets),
        _ => images::note(call),
    })
}
