//! The hooks before and after other packages' hooks regenerate images: take a snapshot, then regenerate what is stale.

use std::io::{self, BufRead};
use std::process::ExitCode;

use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::os::process::{Environment, Output, Program};
use dkms_initramfs::{
    Generator, Maintained, Maintenance, PendingImages, maintain_images, mkinitcpio_override,
    take_snapshot,
};

use crate::hook_main::HookArgs;
use crate::lines::{Lines, PackageNames};
use crate::lock::lock;
use crate::targets::unreadable;
use crate::targets::without_sources;

/// Before mkinitcpio's hook: takes a snapshot of the images of the kernels whose modules changed. Does nothing if the
/// generator's hook has already run; then the hooks that changed the modules have taken it.
///
/// # Errors
/// If the lock cannot be taken or the snapshot cannot be written.
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

/// At the end of a hook that changes modules: takes the snapshot if the generator's hook runs before [`snapshot`]. A hook
/// file for each generator would print a line in every transaction on every machine.
///
/// # Errors
/// If the snapshot cannot be written.
pub(crate) fn snapshot_early(
    machine: &Machine,
    generator: Option<&Generator>,
) -> Result<(), Failure> {
    if let Some(generator) = generator.filter(|it| it.hook_precedes_snapshot()) {
        take_snapshot(machine, generator)?;
    }
    Ok(())
}

/// In place of mkinitcpio's hook, if `[initramfs] precise` has overridden it: passes on its targets, except for the
/// sources of modules, for which it would regenerate all images. Takes no lock: the hook is not ours, and may run within a
/// run that holds it.
///
/// # Errors
/// If the targets cannot be read or the hook's own command cannot be started.
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

/// After all generators' hooks: regenerates the images that are still stale, and restores those that became worse.
///
/// # Errors
/// If the lock cannot be taken. An image that cannot be regenerated is not an error; it shows in the lines and in the exit
/// code.
pub fn verify(args: &HookArgs) -> Result<ExitCode, Failure> {
    let machine = Machine::for_hook(&args.root);
    let generator = Generator::detect(&machine);
    let mut lines = Lines::new(io::stdout(), PackageNames::default());
    let mut succeeded = true;
    if !args.dry_run {
        let updated = mkinitcpio_override::update(&machine, generator.as_ref());
        if let Some(line) = mkinitcpio_override::message(&updated) {
            lines.say(&line);
        }
        succeeded = updated.is_ok();
    }
    if PendingImages::read(&machine).is_empty() {
        return Ok(exit_code(succeeded));
    }
    let maintenance = if args.dry_run { Maintenance::DryRun } else { Maintenance::Regenerate };
    let mut say = |line: &str| lines.say(line);
    let maintained = maintain_images(&machine, generator.as_ref(), maintenance, &mut say)?;
    Ok(exit_code(succeeded && (args.dry_run || maintained != Maintained::Stale)))
}

fn exit_code(succeeded: bool) -> ExitCode {
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
