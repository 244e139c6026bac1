//! `dkms generate_mok`: creates the key that signs modules, and prints how to enrol it.

use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::names::KernelRelease;
use dkms_engine::signing;

use crate::commands::change::take_lock;
use crate::output::progress::Progress;

/// Creates the key if there is none, and prints its path; returns the exit code.
///
/// # Errors
/// [`Failure`] (1) if the key cannot be created.
pub fn run(
    machine: &Machine,
    kernel: Option<&KernelRelease>,
    dry_run: bool,
    progress: &mut Progress<'_>,
) -> Result<u8, Failure> {
    if dry_run {
        progress.say("would create the key that signs modules if there is none");
        return Ok(0);
    }
    // A run that signs may be about to create the same key. A user without the right to take the lock
    // learns about an existing key all the same, as from dkms, which needs no rights here.
    let _lock = take_lock(machine, progress).ok();
    let mok = signing::generate_mok(machine, kernel)?;
    progress.say(&mok.to_string());
    Ok(0)
}
