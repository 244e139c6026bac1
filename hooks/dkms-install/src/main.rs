//! After a kernel, its headers or a module's source arrived: builds and installs what is missing;
//! with `--journal`, before that: notes what is about to change.

use std::process::ExitCode;

use alpm_hook::Change;

fn main() -> ExitCode {
    alpm_hook::run("dkms-install", &["--journal"], |call, targets| {
        let change = Change::read(targets)?;
        if call.flag.is_some() {
            alpm_hook::journal(call, &change)
        } else {
            alpm_hook::sync(call, &change)
        }
    })
}
