//! Regenerates the images that are still stale after the generators' own hooks have run.
//!
//! With `--precise`, overrides mkinitcpio's hook and ignores module sources among the targets.

use std::process::ExitCode;

use alpm_hook::images;

fn main() -> ExitCode {
    alpm_hook::run("mkinitcpio-dkms", &["--precise"], |args, input| match args.flag {
        Some("--precise") => images::precise(args, input),
        _ => images::verify(args),
    })
}
