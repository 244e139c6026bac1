//! The wrapper of `uname`, which prints the release of the target kernel instead of the running
//! one. Some Makefiles call `uname -r` to find the kernel for which they build.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::{ExitCode, Stdio};

use nix::sys::utsname;

use crate::program::{cannot_run, command, exit_code, not_found};
use crate::real_program::real_program;

/// The variable with the release of the target kernel, which dkms sets for builds and confs
/// (dkms-behaviour 4.2).
const TARGET: &str = "kernelver";

/// Runs the real `uname` with the arguments `words`.
pub(crate) fn run(words: &[OsString]) -> ExitCode {
    let Some(program) = real_program("uname") else {
        return not_found("uname");
    };
    let said = match command(&program, words).stderr(Stdio::inherit()).output() {
        Ok(said) => said,
        Err(error) => return cannot_run(&program, &error),
    };
    let _ = io::stdout().write_all(&with_target(&said.stdout));
    exit_code(said.status)
}

/// Returns `output`, with the release of the running kernel replaced by that of the target kernel.
fn with_target(output: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(output);
    let running = utsname::uname().ok();
    let running = running.as_ref().and_then(|names| names.release().to_str());
    match (text, running, env::var(TARGET)) {
        (Ok(text), Some(running), Ok(target)) if !target.is_empty() => {
            text.replace(running, &target).into_bytes()
        }
        _ => output.to_owned(),
    }
}
