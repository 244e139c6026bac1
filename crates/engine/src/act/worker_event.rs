//! What the threads of a run tell the one that started them.

use std::time::{Duration, Instant};

use crate::dkms_tree::Record;
use crate::failure::Failure;
use crate::report::Phase;

/// Something that has happened on another thread.
pub(crate) enum WorkerEvent {
    /// There is a token for one more build.
    Token(Token),
    /// A build came to another phase, at that time.
    Phase(usize, Phase, Instant),
    /// A build has ended: its number, its record or failure, and the time it took.
    Ended(usize, Result<Box<Record>, Failure>, Duration),
    /// An installation begins.
    Installing(usize),
    /// An installation has something to say: one line.
    Says(String),
    /// An installation is over: its number, how it ended if it was begun, and how long it took.
    Installed(usize, Option<Result<(), Failure>>, Duration),
}

/// What a build needs before it starts. make counts it as the one for its own first job.
pub(crate) type Token = std::io::Result<jobserver::Acquired>;
