//! Removes modules after a kernel, its headers or a module's source has been removed.
//!
//! With `--depart`, does so before a transaction that removes alpm-dkms itself, because afterwards
//! our PostTransaction hooks no longer exist.

use std::process::ExitCode;

use alpm_hook::{SyncHook, Targets};

fn main() -> ExitCode {
    alpm_hook::run("dkms-remove", &["--depart"], |args, input| {
        let targets = Targets::read(input)?;
        if args.flag.is_some() {
            alpm_hook::depart(args, &targets)
        } else {
            alpm_hook::sync(args, &targets, SyncHook::Remove)
        }
    })
}
