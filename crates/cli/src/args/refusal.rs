//! Errors in the command line, with dkms's exit codes.

use dkms_engine::failure::Failure;

use crate::args::commands::Command;
use crate::args::parsed::{Args, EarlyExit, ModuleWord};
use crate::args::suggest;

/// The error message if the user must be root.
pub const NOT_ROOT: &str = "permission denied: run dkms as root";

/// Returns an error with `code`, one of dkms's exit codes (dkms-behaviour 9).
///
/// # Errors
/// Always.
pub fn refuse<T>(code: u8, message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::new(code, message))
}

/// Returns the error for a command line that cannot be parsed; `None` for `--version` and `--help`.
#[must_use]
pub fn of_early_exit(exit: &EarlyExit, command: Option<Command>) -> Option<Failure> {
    match exit {
        EarlyExit::Version | EarlyExit::Help => None,
        EarlyExit::Unknown(argument) => {
            let failure = Failure::new(2, format!("unknown option: {argument}"));
            Some(failure.with_hint(match (suggest::option(argument), command) {
                (Some(option), _) => format!("did you mean {option}?"),
                (None, Some(command)) => format!("see: dkms {} --help", command.name()),
                (None, None) => "see: dkms --help".into(),
            }))
        }
        EarlyExit::TwoCommands { first, second } => Some(Failure::new(
            4,
            format!("more than one command given: {first}, {second} (expected one)"),
        )),
        EarlyExit::NoValue(option) => {
            Some(Failure::new(2, format!("missing value for --{option} (expected a path)")))
        }
        EarlyExit::NotText(word) => {
            Some(Failure::new(1, format!("invalid argument: {word:?} (expected UTF-8)")))
        }
    }
}

/// Returns the error for a command line that contains no known command.
#[must_use]
pub fn of_no_command(args: &Args) -> Failure {
    let words = args.names.iter().filter_map(|name| match name {
        ModuleWord::Word(word) => Some(word.as_str()),
        _ => None,
    });
    let words: Vec<&str> = words.collect();
    let meant = words.iter().find_map(|word| Some((*word, suggest::command(word)?)));
    match (meant, words.first()) {
        (Some((word, command)), _) => Failure::new(2, format!("unknown command: {word}"))
            .with_hint(format!("did you mean {command}?")),
        (None, Some(word)) => {
            Failure::new(2, format!("unknown command: {word}")).with_hint("see: dkms --help")
        }
        (None, None) => Failure::new(2, "no command given").with_hint("see: dkms --help"),
    }
}
