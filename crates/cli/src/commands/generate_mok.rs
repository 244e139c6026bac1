//! `dkms generate_mok`: makes the key that modules are signed with, and says how to enrol it.

use dkms_engine::failure::Failure;
use dkms_engine::names::KernelRelease;
use dkms_engine::sign;
use dkms_engine::site::Site;

use crate::commands::change::take_lock;
use crate::output::progress::Progress;

/// Makes the key if there is none, and prints where it is; returns the exit code.
///
/// # Errors
/// [`Failure`] (1) if there is no key in the end.
pub fn run(
    site: &Site,
    kernel: Option<&KernelRelease>,
    dry_run: bool,
    progress: &mut Progress<'_>,
) -> Result<u8, Failure> {
    if dry_run {
        progress.say("would make the key that modules are signed with, if there is none");
        return Ok(0);
    }
    // A run that signs may be about to make the same key. A user without the right to take the lock
    // learns about an existing key all the same, as from dkms, which needs no rights here.
    let _lock = take_lock(site, progress).ok();
    let mok = sign::generate_mok(site, kernel)?;
    progress.say(&mok.to_string());
    Ok(0)
}
