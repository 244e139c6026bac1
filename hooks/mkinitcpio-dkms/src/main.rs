//! Takes a snapshot of the images before mkinitcpio's own hook runs.
//!
//! With `--verify`, regenerates the images that are still stale after mkinitcpio's hook. With
//! `--precise`, overrides mkinitcpio's hook and ignores module sources among the targets.

use std::process::ExitCode;

use alpm_hook::images;

fn main() -> ExitCode {
    alpm_hook::run("mkinitcpio-dkms", &["--precise", "--verify"], |args, input| match args.flag {
        Some("--verify") => images::verify(args),
        Some("--precise") => images::precise(args, input),
        _ => images::snapshot(args),
    })
}
