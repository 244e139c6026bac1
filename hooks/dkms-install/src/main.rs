//! Builds and installs modules after a kernel, its headers or a module's source has been installed.
//!
//! With `--journal`, records a transaction's changes before the transaction starts.

use std::process::ExitCode;

use alpm_hook::{SyncHook, Targets};

fn main() -> ExitCode {
    alpm_hook::run("dkms-install", &["--journal"], |args, input| {
        let targets = Targets::read(input)?;
        if args.flag.is_some() {
            alpm_hook::journal(args, &targets)
        } else {
            alpm_hook::sync(args, &targets, SyncHook::Install)
        }
    })
}
