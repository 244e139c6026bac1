//! `dkms initramfs`, and the maintenance of stale images after other commands.

use dkms_engine::failure::Failure;
use dkms_engine::machine::{InitramfsMode, Machine};
use dkms_initramfs::{
    Generator, Maintained, Maintenance, maintain_images, mkinitcpio_override, needs_maintenance,
};

use crate::args::machine::is_root;
use crate::args::refusal::{NOT_ROOT, refuse};
use crate::output::progress::Progress;

/// Regenerates stale images and returns the exit code. With `dry_run`, only lists the images.
///
/// # Errors
/// [`Failure`] with exit code 1 if the user is not root or the lock cannot be taken.
pub fn run(machine: &Machine, dry_run: bool, progress: &mut Progress<'_>) -> Result<u8, Failure> {
    let generator = Generator::detect(machine);
    let generator = generator.as_ref();
    let mut maintenance = Maintenance::DryRun;
    let mut code = 0;
    if !dry_run {
        if !is_root(machine) {
            return refuse(1, NOT_ROOT);
        }
        maintenance = Maintenance::Regenerate;
        let updated = mkinitcpio_override::update(machine, generator);
        if let Some(line) = mkinitcpio_override::message(&updated) {
            progress.say(&line);
        }
        code = u8::from(updated.is_err());
    }
    match maintain(machine, generator, maintenance, progress)? {
        Maintained::Nothing => {
            progress.say("no images to check: no module has changed since the last check")
        }
        Maintained::UpToDate if dry_run => progress.say("all images are up to date"),
        Maintained::Stale if !dry_run => code = machine.tools.stop.exit_code().unwrap_or(1),
        Maintained::Stale | Maintained::UpToDate | Maintained::Left => {}
    }
    Ok(code)
}

/// Regenerates or lists the images that another command has made stale. Returns the exit code.
///
/// Regenerates the images if the other command finishes pending work (`finishes`) or if
/// `[initramfs] mode` is `auto`; otherwise, only lists them.
///
/// # Errors
/// [`Failure`] with exit code 1 if the lock cannot be taken.
pub fn afterwards(
    machine: &Machine,
    generator: Option<&Generator>,
    finishes: bool,
    progress: &mut Progress<'_>,
) -> Result<u8, Failure> {
    if !needs_maintenance(machine) {
        return Ok(0);
    }
    let regenerates = finishes || machine.settings.initramfs.mode == InitramfsMode::Auto;
    let maintenance = if regenerates { Maintenance::Regenerate } else { Maintenance::Report };
    let maintained = maintain(machine, generator, maintenance, progress)?;
    let is_failure = regenerates && maintained == Maintained::Stale;
    let failure_code = machine.tools.stop.exit_code().unwrap_or(1);
    Ok(if is_failure { failure_code } else { 0 })
}

fn maintain(
    machine: &Machine,
    generator: Option<&Generator>,
    maintenance: Maintenance,
    progress: &mut Progress<'_>,
) -> Result<Maintained, Failure> {
    maintain_images(machine, generator, maintenance, &mut |line| progress.say(line))
        .or_else(|why| refuse(1, why.to_string()))
}
