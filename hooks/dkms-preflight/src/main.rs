//! Before a transaction, checks whether the modules build with the packages that the transaction
//! will install.
//!
//! `--command` answers `dkms preflight`. The other flags are for the processes that this program
//! starts; see the library `preflight`.

use std::process::ExitCode;

use alpm_hook::Targets;
use preflight::command::COMMAND;
use preflight::{TRIAL, WORKER};

fn main() -> ExitCode {
    // Only a verdict may abort the transaction; other failures must not.
    alpm_hook::run_or(
        "dkms-preflight",
        &[WORKER, TRIAL, COMMAND],
        ExitCode::SUCCESS,
        |args, input| match args.flag {
            Some(WORKER) => Ok(preflight::work(input)),
            Some(TRIAL) => Ok(preflight::try_modules(input)),
            Some(COMMAND) => Ok(preflight::command::run(&args.root, input)),
            _ => Ok(preflight::before_transaction(args, &Targets::read(input)?)),
        },
    )
}
