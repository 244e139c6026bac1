//! `dkms preflight`: allows the next transaction to lose modules.

use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use preflight::permission;

use crate::args::intent::PreflightIntent;
use crate::args::machine::is_root;
use crate::args::refusal::{NOT_ROOT, refuse};
use crate::output::console::Console;

/// Runs the command and returns the exit code. With `dry_run`, only prints what it would do.
///
/// # Errors
/// [`Failure`] with exit code 1 if the user is not root or the dkms tree is not writable.
pub fn run(
    machine: &Machine,
    intent: &PreflightIntent,
    dry_run: bool,
    console: &Console,
) -> Result<u8, Failure> {
    match intent {
        PreflightIntent::AllowOnce => allow_once(machine, dry_run, console),
    }
}

fn allow_once(machine: &Machine, dry_run: bool, console: &Console) -> Result<u8, Failure> {
    if dry_run {
        console.print("would allow the next transaction to lose modules\n");
        return Ok(0);
    }
    if !is_root(machine) {
        return refuse(1, NOT_ROOT);
    }
    permission::grant(&machine.trees)?;
    console.print(
        "The next transaction with a preflight goes on even if this machine loses modules that it needs.\n\
         Later transactions are checked as usual.\n",
    );
    Ok(0)
}
