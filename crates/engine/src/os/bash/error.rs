//! Errors from evaluating files with bash.

use std::path::PathBuf;
use std::time::Duration;

/// The reason that a file could not be evaluated. Other files are not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BashError {
    /// The file does not exist, is not a regular file, or is not readable.
    #[error("cannot read {}: {reason}", file.display())]
    Unreadable {
        /// The file that bash was to evaluate.
        file: PathBuf,
        /// The reason, usually the operating system's error message.
        reason: String,
    },
    /// The file ended the shell: by `exit`, `exec` or a failure under `set -e`.
    #[error("{}: evaluation ended early: {}", file.display(), cause(complaint))]
    Unfinished {
        /// The file that bash was to evaluate.
        file: PathBuf,
        /// The beginning of standard error; may be empty.
        complaint: String,
    },
    /// The evaluation exceeded the time limit.
    #[error("{}: evaluation timed out after {} s", file.display(), after.as_secs_f32())]
    TimedOut {
        /// The file that bash was to evaluate.
        file: PathBuf,
        /// The time limit that was exceeded.
        after: Duration,
    },
    /// The values of the variables exceed 4 MiB in total.
    #[error("{}: values too large: more than 4 MiB in total", file.display())]
    TooMuch {
        /// The file that bash was to evaluate.
        file: PathBuf,
    },
    /// A value is not UTF-8, so it cannot be written to a record or shown.
    #[error("{}: {directive}: not valid UTF-8", file.display())]
    NotUtf8 {
        /// The file that bash was to evaluate.
        file: PathBuf,
        /// The directive with its index, such as `MAKE[0]`.
        directive: String,
    },
    /// The content of the file is not valid.
    #[error("{}: invalid:{}", file.display(), list(problems))]
    Invalid {
        /// The file that bash was to evaluate.
        file: PathBuf,
        /// All problems found. A problem with a directive starts with the directive's name.
        problems: Vec<String>,
    },
    /// bash could not be started.
    #[error("cannot read {}: {reason}", file.display())]
    NoReader {
        /// The file that bash was to evaluate.
        file: PathBuf,
        /// The reason that bash could not be started.
        reason: String,
    },
}

fn cause(complaint: &str) -> String {
    let complaint: Vec<_> = complaint.lines().take(5).collect();
    if complaint.is_empty() {
        "the file exits the shell".to_owned()
    } else {
        complaint.join("\n  ")
    }
}

fn list(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
