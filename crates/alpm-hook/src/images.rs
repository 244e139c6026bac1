//! What is done before and after other packages' hooks regenerate images: note how these are, then look at what came
//! of it.

use std::io::{self, BufRead};
use std::process::ExitCode;

use dkms_engine::machine::{Kernels, Machine};
use dkms_engine::os::process::{Environment, Output, Program};
use dkms_initramfs::assess::Accounts;
use dkms_initramfs::generators::Generator;
use dkms_initramfs::mkinitcpio_override;
use dkms_initramfs::pending::Owed;
use dkms_initramfs::snapshot::Note;

use crate::hook_main::{Call, Failure};
use crate::lines::{Lines, Names};
use crate::targets::without_sources;
use crate::transaction::lock;

/// Before mkinitcpio's hook: notes the images of the kernels whose modules changed. Does nothing where the generator's
/// hook has run already: the hooks that change modules have noted them.
///
/// # Errors
/// If the lock cannot be taken, or the note cannot be written.
pub fn note(call: &Call) -> Result<ExitCode, Failure> {
    let machine = Machine::for_hook(&call.root);
    if !call.dry_run && !Owed::read(&machine).is_empty() {
        let _lock = lock(call, &machine)?;
        take(&machine, |generator| !generator.is_ahead_of_note())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// At the end of a hook that changed modules: notes the images if the generator's hook comes before [`note`]'s. A hook
/// file of its own for each generator would be a line of pacman's for each, on every machine.
///
/// # Errors
/// If the note cannot be written.
pub(crate) fn note_ahead(machine: &Machine) -> Result<(), Failure> {
    take(machine, Generator::is_ahead_of_note)
}

fn take(machine: &Machine, is_now: impl Fn(Generator) -> bool) -> Result<(), Failure> {
    let owed = Owed::read(machine);
    let Some(generator) = Generator::of(machine).filter(|it| is_now(*it) && !owed.is_empty())
    else {
        return Ok(());
    };
    let mut kernels = Kernels::read(&machine.trees)?.all;
    kernels.retain(|kernel| kernel.alive && owed.is_to(&kernel.release));
    Ok(Note::take(machine, generator, &kernels).write(machine)?)
}

/// In the place of mkinitcpio's hook, if `[initramfs] precise` has put us there: hands it its targets, but not the
/// sources of modules, for which it would regenerate all images. Takes no lock: the hook is not ours, and we may be
/// called by a run of ours that holds it.
///
/// # Errors
/// If the targets cannot be read, or the hook's own command cannot be started.
pub fn precise(call: &Call, input: &mut dyn BufRead) -> Result<ExitCode, Failure> {
    let machine = Machine::for_hook(&call.root);
    let mut targets = Vec::new();
    input.read_to_end(&mut targets)?;
    if mkinitcpio_override::is_looked_after(&machine) {
        targets = without_sources(&targets);
    }
    let stock = mkinitcpio_override::stock_command(&call.root).unwrap_or_default();
    let Some((program, args)) = stock.split_first().filter(|_| !targets.is_empty()) else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut lines = Lines::new(io::stdout(), Names::default());
    if call.dry_run {
        lines.say(&format!("would run: {}", stock.join(" ")));
        return Ok(ExitCode::SUCCESS);
    }
    let ended = Program::new(program, &Environment::of_caller())
        .args(args)
        .cwd("/")
        .stdin(targets)
        .output(Output::Lines(&mut |line| lines.say(line)))
        .run()?;
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// After all generators' hooks: regenerates what is still stale, puts back what became worse, and gives the verdict.
///
/// # Errors
/// If the lock cannot be taken. An image that cannot be regenerated is told in the lines and in the exit code.
pub fn verify(call: &Call) -> Result<ExitCode, Failure> {
    let machine = Machine::for_hook(&call.root);
    let well = call.dry_run || keep_precise(&machine);
    if Owed::read(&machine).is_empty() {
        return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let _lock = lock(call, &machine)?;
    let accounts = Accounts::read(&machine);
    let mut lines = Lines::new(io::stdout(), Names::default());
    if call.dry_run {
        accounts.lines().iter().for_each(|line| lines.say(line));
        accounts
            .calls(&machine)
            .iter()
            .for_each(|it| lines.say(&format!("would run: {}", it.line())));
        return Ok(ExitCode::SUCCESS);
    }
    let well = accounts.settle(&machine, &mut |line| lines.say(line)) && well;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Brings the override of mkinitcpio's hook in line with the setting; tells why it is not, if so.
fn keep_precise(machine: &Machine) -> bool {
    let mut lines = Lines::new(io::stdout(), Names::default());
    let kept = mkinitcpio_override::keep(machine);
    if let Some(line) = mkinitcpio_override::said(&kept) {
        lines.say(&line);
    }
    kept.is_ok()
}
