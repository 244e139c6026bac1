//! The events that the worker threads of a run send to the thread that started them.

use std::time::{Duration, Instant};

use crate::building::Tried;
use crate::dkms_tree::Record;
use crate::failure::Failure;
use crate::os::jobserver;
use crate::report::{Outcome, Phase};

/// An event on a worker thread. Each job is identified by its number, which is its index in the
/// plan.
pub(crate) enum WorkerEvent {
    /// The jobserver granted a token for another build, or reported an error.
    Token(Token),
    /// A build entered a phase: the number of the job, the phase, and the time at which it began.
    Phase(usize, Phase, Instant),
    /// A build ended: the number of the job, the build, and the duration.
    Ended(usize, Tried, Duration),
    /// The record of an accepted build was confirmed, or its failure was recorded: the number of
    /// the job, the record or the failure, and the duration of the build.
    Settled(usize, Result<Box<Record>, Failure>, Duration),
    /// The job with this number started to install its module.
    Installing(usize),
    /// A build or an installation printed this line.
    Line(String),
    /// An installation ended: the number of the job, the result, and the duration. The result is
    /// `None` if the run was asked to stop before the installation started.
    Installed(usize, Option<Result<Outcome, Failure>>, Duration),
}

/// A jobserver token, which a build needs to start, or the error of the jobserver. The build's make
/// uses the token for its first job.
pub(crate) type Token = std::io::Result<jobserver::Token>;
