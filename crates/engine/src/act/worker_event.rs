//! The events that the threads of a run send to the main thread.

use std::time::{Duration, Instant};

use crate::dkms_tree::Record;
use crate::failure::Failure;
use crate::report::Phase;

/// An event on another thread. Numbers are positions in the list of jobs.
pub(crate) enum WorkerEvent {
    /// A jobserver token for one more build.
    Token(Token),
    /// The phase that a build entered, and when.
    Phase(usize, Phase, Instant),
    /// The end of a build: its record or failure, and the time it took.
    Ended(usize, Result<Box<Record>, Failure>, Duration),
    /// The start of an installation.
    Installing(usize),
    /// One line of output from an installation.
    Says(String),
    /// The end of an installation: its result, `None` if it was not started, and the time it took.
    Installed(usize, Option<Result<(), Failure>>, Duration),
}

/// The jobserver token of a build. make counts it as the token of its first job.
pub(crate) type Token = std::io::Result<jobserver::Acquired>;
