//! The hooks' work on images: recording the state of images before the generators' own hooks run,
//! and regenerating stale images afterwards.

use std::io::{self, BufRead};
use std::process::ExitCode;

use dkms_engine::dkms_tree::finish_journal;
use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::os::process::{Environment, Output, Program};
use dkms_initramfs::{
    Generator, Maintained, Maintenance, maintain_images, mkinitcpio_override, needs_maintenance,
    note_existing_images, take_snapshot,
};
use verify::notice;

use crate::hook_main::HookArgs;
use crate::lines::{Lines, PackageNames, warn_of_settings};
use crate::targets::unreadable;
use crate::targets::without_sources;
use crate::told::Told;

/// Records which images exist, before other packages' hooks remove them: mkinitcpio's hook removes
/// the images of a kernel that is upgraded, and kernel-install's hooks remove all images.
///
/// Takes no lock, so that a transaction does not have to wait for a running build before it starts.
///
/// # Errors
/// [`Failure`] if the record cannot be written.
pub(crate) fn note_existing(machine: &Machine) -> Result<(), Failure> {
    if let Some(generator) = Generator::detect(machine) {
        note_existing_images(machine, &generator)?;
    }
    Ok(())
}

/// Takes a snapshot of the images at the end of a hook that changes modules. The hooks that
/// regenerate images for changed modules run later.
///
/// This is not a separate hook, because pacman would print its description in every transaction.
///
/// # Errors
/// [`Failure`] if the snapshot cannot be written.
pub(crate) fn snapshot(machine: &Machine, generator: Option<&Generator>) -> Result<(), Failure> {
    if let Some(generator) = generator {
        take_snapshot(machine, generator)?;
    }
    Ok(())
}

/// Runs the command of mkinitcpio's hook, but omits module sources from the targets. If the command
/// received them, it would regenerate every image.
///
/// This is the override that `[initramfs] precise` enables. Takes no lock, because a run that holds
/// the lock may have started the override.
///
/// # Errors
/// [`Failure`] if the targets cannot be read or the command of mkinitcpio's hook cannot be started.
pub fn precise(args: &HookArgs, input: &mut dyn BufRead) -> Result<ExitCode, Failure> {
    let machine = Machine::for_hook(&args.root);
    let mut targets = Vec::new();
    input.read_to_end(&mut targets).map_err(|error| unreadable(&error))?;
    if mkinitcpio_override::is_in_effect(&machine, Generator::detect(&machine).as_ref()) {
        targets = without_sources(&targets);
    }
    let stock = mkinitcpio_override::stock_command(&args.root).unwrap_or_default();
    let Some((program, words)) = stock.split_first().filter(|_| !targets.is_empty()) else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut lines = Lines::new(io::stdout(), PackageNames::default());
    if args.dry_run {
        lines.say(&format!("would run: {}", stock.join(" ")));
        return Ok(ExitCode::SUCCESS);
    }
    let ended = Program::new(program, &Environment::of_caller())
        .args(words)
        .cwd("/")
        .stdin(targets)
        .output(Output::Lines(&mut |line| lines.say(line)))
        .run()
        .map_err(|error| Failure::new(1, error.to_string()))?;
    Ok(exit_code(ended.success()))
}

/// Regenerates the images that are still stale after the generators' own hooks have run, and
/// restores images that have lost a module or are damaged.
///
/// # Errors
/// [`Failure`] if the lock cannot be taken. An image that cannot be regenerated is not an error,
/// but is reported in the output and by the exit code.
pub fn verify(args: &HookArgs) -> Result<ExitCode, Failure> {
    let machine = Machine::for_hook(&args.root);
    let mut told = Told::read(&machine.trees);
    warn_of_settings(&machine, &mut told);
    machine.omit_warnings(told.texts().iter().cloned());
    let verified = verify_images(args, &machine);
    if !args.dry_run {
        finish_journal(&machine.trees)?;
        notice::renew(&machine)?;
    }
    verified
}

fn verify_images(args: &HookArgs, machine: &Machine) -> Result<ExitCode, Failure> {
    let generator = Generator::detect(machine);
    let mut lines = Lines::new(io::stdout(), PackageNames::default());
    let mut succeeded = true;
    if !args.dry_run {
        let updated = mkinitcpio_override::update(machine, generator.as_ref());
        if let Some(line) = mkinitcpio_override::message(&updated) {
            lines.say(&line);
        }
        succeeded = updated.is_ok();
    }
    if !needs_maintenance(machine) {
        return Ok(exit_code(succeeded));
    }
    let maintenance = if args.dry_run { Maintenance::DryRun } else { Maintenance::Regenerate };
    let mut say = |line: &str| lines.say(line);
    let maintained = maintain_images(machine, generator.as_ref(), maintenance, &mut say)?;
    if maintained == Maintained::Stale && !args.dry_run {
        return Ok(ExitCode::from(machine.tools.stop.exit_code().unwrap_or(1)));
    }
    Ok(exit_code(succeeded))
}

fn exit_code(succeeded: bool) -> ExitCode {
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
