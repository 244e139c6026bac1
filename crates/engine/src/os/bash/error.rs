//! Errors of a file that bash reads.

use std::path::PathBuf;
use std::time::Duration;

/// A file that cannot be used. It concerns that file alone: the next one is read as usual.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BashError {
    /// It is not there, not a file, or may not be read.
    #[error("{} cannot be read: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// It ended the shell that read it: by `exit`, `exec`, a failure under `set -e`.
    #[error("{} was not read to its end: it leaves the shell that reads it{}",
        file.display(), said(complaint))]
    Unfinished {
        /// The file.
        file: PathBuf,
        /// What was written to standard error meanwhile; may be empty.
        complaint: String,
    },
    /// It took longer than it may.
    #[error("{} was not read to its end within {} s: it waits for something or never ends",
        file.display(), after.as_secs_f32())]
    TimedOut {
        /// The file.
        file: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// Its values are longer than any sensible ones.
    #[error("{} sets values of several megabytes", file.display())]
    TooMuch {
        /// The file.
        file: PathBuf,
    },
    /// A value is not UTF-8, and could neither be written to a record nor shown.
    #[error("{}: the value of {directive} is not UTF-8", file.display())]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// The directive, with its index.
        directive: String,
    },
    /// It could be read, but says what cannot be done.
    #[error("{} cannot be used:{}", file.display(), list(problems))]
    Invalid {
        /// The file.
        file: PathBuf,
        /// All that is wrong, each a sentence naming the directive.
        problems: Vec<String>,
    },
    /// There is no bash to read it.
    #[error("{} cannot be read: {reason}", file.display())]
    NoReader {
        /// The file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
}

fn said(complaint: &str) -> String {
    let complaint: Vec<_> = complaint.lines().take(5).collect();
    if complaint.is_empty() {
        String::new()
    } else {
        format!("; it says: {}", complaint.join("\n  "))
    }
}

fn list(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
