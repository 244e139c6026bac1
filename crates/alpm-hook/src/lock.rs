//! Takes the lock of the dkms tree for a hook.

use std::io;

use dkms_engine::failure::Failure;
use dkms_engine::machine::Lock;
use dkms_engine::machine::Machine;

use crate::hook_main::HookArgs;
use crate::lines::{Lines, PackageNames};

/// Takes the lock of the dkms tree. If another run holds the lock, prints a line and waits. Returns
/// `None` in a dry run.
pub(crate) fn lock(args: &HookArgs, machine: &Machine) -> Result<Option<Lock>, Failure> {
    if args.dry_run {
        return Ok(None);
    }
    let mut lines = Lines::new(io::stdout(), PackageNames::default());
    Ok(Some(Lock::take(&machine.trees, &machine.env, &mut |text| lines.say(text))?))
}
