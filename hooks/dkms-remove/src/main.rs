//! After a kernel, its headers or a module's source left: removes what they leave behind; with
//! `--depart`, before our own package goes: the same, since nobody is there to do it after.

use std::process::ExitCode;

use alpm_hook::Change;

fn main() -> ExitCode {
    alpm_hook::run("dkms-remove", &["--depart"], |call, targets| {
        let change = Change::read(targets)?;
        if call.flag.is_some() {
            alpm_hook::depart(call, &change)
        } else {
            alpm_hook::sync(call, &change)
        }
    })
}
