//! The hook after a kernel, its headers or a module's source was removed, which removes what is left of them; with
//! `--depart`, the hook before alpm-dkms itself is removed, which does the same because no hook of ours runs later.

use std::process::ExitCode;

use alpm_hook::Targets;

fn main() -> ExitCode {
    alpm_hook::run("dkms-remove", &["--depart"], |args, input| {
        let targets = Targets::read(input)?;
        if args.flag.is_some() {
            alpm_hook::depart(args, &targets)
        } else {
            alpm_hook::sync(args, &targets)
        }
    })
}
