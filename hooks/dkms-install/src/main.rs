//! Builds and installs modules after a kernel, its headers or a module's source has been installed.
//!
//! With `--journal`, records the paths that a transaction is about to install or replace.
//! `--script` is for hooks of administrators, which may run before the transaction.

use std::process::ExitCode;

use alpm_hook::{Operation, SCRIPT, SyncHook, Targets};

fn main() -> ExitCode {
    alpm_hook::run("dkms-install", &["--journal", SCRIPT], |args, input| {
        let targets = Targets::read(input)?;
        match args.flag {
            Some("--journal") => alpm_hook::journal(args, &targets, Operation::Arriving),
            _ => alpm_hook::sync(args, &targets, SyncHook::Install),
        }
    })
}
