//! The image hooks: take a snapshot before the generator's own hook, and regenerate stale images
//! after it.

use std::io::{self, BufRead};
use std::process::ExitCode;

use dkms_engine::dkms_tree::finish_journal;
use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::os::process::{Environment, Output, Program};
use dkms_initramfs::{
    Generator, Maintained, Maintenance, PendingImages, maintain_images, mkinitcpio_override,
    needs_maintenance, take_snapshot,
};

use crate::hook_main::HookArgs;
use crate::lines::{Lines, PackageNames, warn_of_settings};
use crate::lock::lock;
use crate::targets::unreadable;
use crate::targets::without_sources;
use crate::told::Told;

/// Takes a snapshot of the images of all kernels whose modules have changed.
///
/// This hook runs before mkinitcpio's hook. Does nothing if the generator's hook has already run,
/// because the hooks that change modules have then taken the snapshot.
///
/// # Errors
/// [`Failure`] if the lock cannot be taken or the snapshot cannot be written.
pub fn snapshot(args: &HookArgs) -> Result<ExitCode, Failure> {
    let machine = Machine::for_hook(&args.root);
    if args.dry_run || PendingImages::read(&machine).is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(generator) = Generator::detect(&machine).filter(|it| !it.hook_precedes_snapshot()) {
        let _lock = lock(args, &machine)?;
        take_snapshot(&machine, &generator)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes the snapshot at the end of a hook that changes modules. Does nothing if [`snapshot`] runs
/// early enough, which is before the generator's hook.
///
/// This is not a separate hook, because pacman would print its description in every transaction.
///
/// # Errors
/// [`Failure`] if the snapshot cannot be written.
pub(crate) fn snapshot_early(
    machine: &Machine,
    generator: Option<&Generator>,
) -> Result<(), Failure> {
    if let Some(generator) = generator.filter(|it| it.hook_precedes_snapshot()) {
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
/// [`Failure`] if the lock cannot be taken. An image that cannot be regenerated is not an error: it
/// is reported in the output and by the exit code.
pub fn verify(args: &HookArgs) -> Result<ExitCode, Failure> {
    let machine = Machine::for_hook(&args.root);
    let verified = verify_images(args, &machine);
    if !args.dry_run {
        finish_journal(&machine.trees)?;
    }
    verified
}

fn verify_images(args: &HookArgs, machine: &Machine) -> Result<ExitCode, Failure> {
    warn_of_settings(machine, &mut Told::read(&machine.trees));
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
    Ok(exit_code(succeeded && (args.dry_run || maintained != Maintained::Stale)))
}

fn exit_code(succeeded: bool) -> ExitCode {
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
