//! How a program ended, or why it could not be run.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By itself, with this exit status.
    Exited(i32),
    /// By a signal with this number.
    Killed(i32),
    /// By us, because its time was over.
    TimedOut,
    /// By us, because of a signal that ends this run.
    Interrupted,
}

impl How {
    pub(super) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Killed(signal.unwrap_or_default()),
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::TimedOut => f.write_str("out of time"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// A program that was run to its end.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How it ended.
    pub how: How,
    /// Its standard output, at most 1 MiB; empty unless captured.
    pub output: Vec<u8>,
    /// Its standard error, bounded in the same way.
    pub errors: Vec<u8>,
    /// How long it ran.
    pub elapsed: Duration,
}

impl Ended {
    /// Returns true if it ended by itself with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.how == How::Exited(0)
    }

    /// The last lines of what it complained about, for an error message; may be empty.
    #[must_use]
    pub fn complaint(&self) -> String {
        const LINES: usize = 5;
        let said = if self.errors.trim_ascii().is_empty() { &self.output } else { &self.errors };
        let said = String::from_utf8_lossy(said);
        let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

/// A program that could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no such program, or it is not executable.
    #[error("cannot run `{line}`: there is no program {}; install the package it belongs to", program.display())]
    NoProgram {
        /// The command line.
        line: String,
        /// The program as it was named.
        program: PathBuf,
    },
    /// The directory it should start in is not there.
    #[error("cannot run `{line}`: there is no directory {}", dir.display())]
    NoDirectory {
        /// The command line.
        line: String,
        /// The directory.
        dir: PathBuf,
    },
    /// The system refused to start it or to talk to it.
    #[error("cannot run `{line}`: {source}")]
    Io {
        /// The command line.
        line: String,
        /// The error of the system.
        source: io::Error,
    },
}
