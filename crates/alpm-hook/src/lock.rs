//! The lock of the dkms tree, as a hook takes it.

use std::io;

use dkms_engine::failure::Failure;
use dkms_engine::machine::Lock;
use dkms_engine::machine::Machine;

use crate::hook_main::HookArgs;
use crate::lines::{Lines, PackageNames};

/// Takes the lock, except in a dry run.
pub(crate) fn lock(args: &HookArgs, machine: &Machine) -> Result<Option<Lock>, Failure> {
    if args.dry_run {
        return Ok(None);
    }
    let mut lines = Lines::new(io::stdout(), PackageNames::default());
    Ok(Some(Lock::take(&machine.trees, &machine.env, &mut |text| lines.say(text))?))
}
