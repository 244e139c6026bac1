//! The hook after a kernel, its headers or a module's source arrived, which builds and installs the missing modules; with
//! `--journal`, the hook before a transaction, which journals what is about to change.

use std::process::ExitCode;

use alpm_hook::Targets;

fn main() -> ExitCode {
    alpm_hook::run("dkms-install", &["--journal"], |args, input| {
        let targets = Targets::read(input)?;
        if args.flag.is_some() {
            alpm_hook::journal(args, &targets)
        } else {
            alpm_hook::sync(args, &targets)
        }
    })
}
