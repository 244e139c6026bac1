//! `dkms initramfs`, and the handling of stale images after other commands.

use dkms_engine::failure::Failure;
use dkms_engine::machine::{InitramfsMode, Machine};
use dkms_initramfs::accounts::Accounts;
use dkms_initramfs::owed::Owed;
use dkms_initramfs::precise;

use crate::args::machine::is_root;
use crate::args::refusal::{NOT_ROOT, refuse};
use crate::commands::change::take_lock;
use crate::output::progress::Progress;

/// Regenerates stale images, or with `dry_run` only lists them; returns the exit code.
///
/// # Errors
/// [`Failure`] (1) if the user is not root, or if the lock cannot be taken.
pub fn run(machine: &Machine, dry_run: bool, progress: &mut Progress<'_>) -> Result<u8, Failure> {
    if dry_run {
        tell(machine, &Accounts::read(machine), progress);
        return Ok(0);
    }
    if !is_root(machine) {
        return refuse(1, NOT_ROOT);
    }
    let _lock = take_lock(machine, progress)?;
    let kept = precise::keep(machine);
    if let Some(line) = precise::said(&kept) {
        progress.say(&line);
    }
    let accounts = Accounts::read(machine);
    if accounts.all.is_empty() {
        progress.say("no image is stale");
    }
    let well = accounts.settle(machine, &mut |line| progress.say(line));
    Ok(u8::from(!well || kept.is_err()))
}

/// After another command: regenerates stale images if that command `finishes` pending work or if the
/// settings say so, otherwise lists them; returns the exit code.
///
/// # Errors
/// [`Failure`] (1) if the lock cannot be taken.
pub fn afterwards(
    machine: &Machine,
    finishes: bool,
    progress: &mut Progress<'_>,
) -> Result<u8, Failure> {
    if Owed::read(machine).is_empty() {
        return Ok(0);
    }
    let _lock = take_lock(machine, progress)?;
    let accounts = Accounts::read(machine);
    if finishes || machine.settings.initramfs.mode == InitramfsMode::Auto {
        return Ok(u8::from(!accounts.settle(machine, &mut |line| progress.say(line))));
    }
    for line in accounts.lines() {
        progress.note(&line);
    }
    if !accounts.calls(machine).is_empty() {
        progress.note("regenerate it with: dkms initramfs");
    }
    accounts.clear_fine(machine);
    Ok(0)
}

fn tell(machine: &Machine, accounts: &Accounts, progress: &mut Progress<'_>) {
    for line in accounts.lines() {
        progress.say(&line);
    }
    let calls = accounts.calls(machine);
    if calls.is_empty() {
        progress.say("no image is stale");
    }
    for call in calls {
        progress.say(&format!("would run: {}", call.line()));
    }
}
