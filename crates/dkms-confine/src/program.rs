//! Starts programs, and converts their results to exit codes.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

/// The exit code for a program that cannot be run, as in a shell.
const CANNOT_RUN: u8 = 126;
/// The exit code for a program that does not exist, as in a shell.
const NOT_FOUND: u8 = 127;
/// The number added to a signal number for the exit code of a killed program, as in a shell.
pub(crate) const SIGNALLED: i32 = 128;

/// Returns a command that runs `program` with the arguments `words`.
#[expect(clippy::disallowed_methods, reason = "the engine starts programs through this one")]
pub(crate) fn command(program: impl AsRef<OsStr>, words: &[OsString]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    command
}

/// Returns the exit code of a program as a shell sees it.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|signal| SIGNALLED + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Prints that a program cannot be run, and returns the exit code for this error.
pub(crate) fn cannot_run(program: &Path, error: &io::Error) -> ExitCode {
    complain(&format!("cannot run {}: {error}", program.display()));
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN })
}

/// Prints that a program is not in PATH, and returns the exit code for this error.
pub(crate) fn not_found(name: &str) -> ExitCode {
    complain(&format!("{name}: not found in PATH"));
    ExitCode::from(NOT_FOUND)
}

/// Prints a message of this program to standard error. Write errors are ignored.
pub(crate) fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "alpm-dkms: {what}");
}
