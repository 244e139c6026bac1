//! Removes modules after a kernel, its headers or a module's source has been removed.
//!
//! With `--journal`, records the paths that a transaction is about to remove. With `--depart`,
//! removes modules before a transaction that removes alpm-dkms itself, because afterwards our
//! PostTransaction hooks no longer exist. `--script` is for hooks of administrators, which may run
//! before the transaction.

use std::process::ExitCode;

use alpm_hook::{Operation, SCRIPT, SyncHook, Targets};

fn main() -> ExitCode {
    alpm_hook::run("dkms-remove", &["--journal", "--depart", SCRIPT], |args, input| {
        let targets = Targets::read(input)?;
        match args.flag {
            Some("--journal") => alpm_hook::journal(args, &targets, Operation::Departing),
            Some("--depart") => alpm_hook::depart(args, &targets),
            _ => alpm_hook::sync(args, &targets, SyncHook::Remove),
        }
    })
}
