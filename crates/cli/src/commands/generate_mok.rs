//! `dkms generate_mok`: creates the module signing key and prints how to enrol it.

use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::names::KernelRelease;
use dkms_engine::signing;

use crate::commands::change::take_lock;
use crate::output::progress::Progress;

/// Creates the key if it does not exist and prints its path. Returns the exit code.
///
/// # Errors
/// [`Failure`] with exit code 1 if the key cannot be created.
pub fn run(
    machine: &Machine,
    kernel: Option<&KernelRelease>,
    dry_run: bool,
    progress: &mut Progress<'_>,
) -> Result<u8, Failure> {
    if dry_run {
        progress.say("would create the module signing key if it does not exist");
        return Ok(0);
    }
    // Another run may be creating the same key. As in dkms, a user who cannot take the lock still
    // gets the path of an existing key.
    let _lock = take_lock(machine, progress).ok();
    let mok = signing::generate_mok(machine, kernel)?;
    progress.say(&mok.to_string());
    Ok(0)
}
