//! The hook before mkinitcpio's, which takes a snapshot of the images; with `--verify`, the hook after it, which
//! regenerates the images that are still stale; with `--precise`, an override of it that skips it for modules alone.

use std::process::ExitCode;

use alpm_hook::images;

fn main() -> ExitCode {
    alpm_hook::run("mkinitcpio-dkms", &["--precise", "--verify"], |args, input| match args.flag {
        Some("--verify") => images::verify(args),
        Some("--precise") => images::precise(args, input),
        _ => images::snapshot(args),
    })
}
