//! The result of running a program.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// The number that a shell adds to a signal's number to get the exit status of a program killed by
/// that signal. Linux has 64 signals.
pub(crate) const SIGNALLED: i32 = 128;

/// The way in which a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The program exited with this status.
    Exited(i32),
    /// The signal with this number killed the program, or killed another program that the program
    /// ran. In the second case, shells and dkms-confine exit with status 128 plus the number.
    Killed(i32),
    /// The engine killed the program at its deadline.
    TimedOut,
    /// The engine killed the program because of a request to [`Stop`](super::Stop).
    Interrupted,
}

impl How {
    pub(super) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code @ 129..=192), _) => Self::Killed(code - SIGNALLED),
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
            Self::TimedOut => f.write_str("timed out"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// The result of a program that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The exit status, or the reason that the program was killed.
    pub how: How,
    /// The first 1 MiB of standard output; empty unless [`Output::Capture`](super::Output::Capture)
    /// is used.
    pub output: Vec<u8>,
    /// The first 1 MiB of standard error; empty unless [`Output::Capture`](super::Output::Capture)
    /// is used.
    pub errors: Vec<u8>,
    /// The time between the start and the end of the program.
    pub elapsed: Duration,
}

impl Ended {
    /// Returns true if the program exited with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.how == How::Exited(0)
    }

    /// Returns the last lines of standard error for an error message; may be empty.
    ///
    /// If standard error is empty, returns the last lines of standard output instead.
    #[must_use]
    pub fn complaint(&self) -> String {
        const LINES: usize = 5;
        let said = if self.errors.trim_ascii().is_empty() { &self.output } else { &self.errors };
        let said = String::from_utf8_lossy(said);
        let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

/// The reason that a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The program does not exist or is not executable.
    #[error("cannot run `{line}`: program not found: {}; install the package that provides it",
        program.display())]
    NoProgram {
        /// The program and its arguments, quoted for a shell.
        line: String,
        /// The name or path that was passed to [`Program::new`](super::Program::new).
        program: PathBuf,
    },
    /// The working directory does not exist.
    #[error("cannot run `{line}`: directory not found: {}", dir.display())]
    NoDirectory {
        /// The program and its arguments, quoted for a shell.
        line: String,
        /// The missing directory.
        dir: PathBuf,
    },
    /// The program could not be started or watched.
    #[error("cannot run `{line}`: {source}")]
    Io {
        /// The program and its arguments, quoted for a shell.
        line: String,
        /// The error from the operating system.
        source: io::Error,
    },
}
