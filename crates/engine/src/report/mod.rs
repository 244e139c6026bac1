//! What became of each step, told while it happens and summed up at the end.

pub(crate) mod timings;

use std::fmt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::failure::Failure;
use crate::plan::{Action, Plan, Step, Task};

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As planned.
    Done,
    /// Not carried out, since what it builds upon did not come about; the text says what.
    Skipped(String),
    /// It failed.
    Failed(Failure),
}

impl Outcome {
    /// How a step ended that was carried out.
    pub(crate) fn of(result: Result<(), Failure>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Done)
    }
}

/// A step that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The task that the step belongs to.
    pub task: Task,
    /// The step.
    pub step: Step,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
}

/// What a build is busy with. The first one begins when it has its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Copies the source.
    Copying,
    /// Applies patches.
    Patching,
    /// Runs the script that this directive names.
    Script(&'static str),
    /// Runs make.
    Compiling,
    /// Looks whether every object is there, and is one for this kernel.
    Checking,
    /// Strips, signs and compresses the objects.
    Finishing,
    /// Waits until nothing else runs: it ran out of memory beside others.
    Waiting,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copying => f.write_str("copying"),
            Self::Patching => f.write_str("patching"),
            Self::Script(directive) => write!(f, "running {directive}"),
            Self::Compiling => f.write_str("compiling"),
            Self::Checking => f.write_str("checking"),
            Self::Finishing => f.write_str("stripping and compressing"),
            Self::Waiting => f.write_str("waiting to be alone"),
        }
    }
}

/// What happens, while it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// The plan is about to be carried out.
    Planned(&'a Plan),
    /// A step begins. A build may still have to wait for a token of the jobserver.
    Started {
        /// The task that the step belongs to.
        task: Task,
        /// The step.
        step: &'a Step,
    },
    /// A build comes to another phase. Builds run side by side, and are heard of in the order in
    /// which it happens.
    Phase {
        /// The job.
        task: Task,
        /// The step that builds.
        step: &'a Step,
        /// What it does from now on.
        phase: Phase,
        /// Since when.
        at: Instant,
    },
    /// A step is over.
    Finished(&'a Finished),
    /// A script of a module, or a part of the run, has something to say: one line.
    Says(&'a str),
}

/// Somebody who wants to know what happens.
pub trait Watch {
    /// Is told of one event.
    fn event(&mut self, event: &Event<'_>);
}

/// Nobody.
impl Watch for () {
    fn event(&mut self, _: &Event<'_>) {}
}

/// A run that a signal ended before it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interruption {
    /// The signal.
    pub signal: Signal,
    /// How many modules were to be built or installed, counted for each kernel.
    pub all: usize,
    /// How many of them the run did not come to the end with.
    pub left: usize,
    /// The rest is pending: it is finished without being asked for again.
    pub pending: bool,
}

impl Interruption {
    /// 128 and the signal's number: what a shell gives for a program that a signal ended.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        128_u8.saturating_add(u8::try_from(self.signal as i32).unwrap_or_default())
    }
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by {}: ", self.signal)?;
        match (self.left, self.all) {
            (0, _) => f.write_str("what is removed is not all gone")?,
            (1, 1) => f.write_str("the module is not ready")?,
            (left, all) => write!(f, "{left} of {all} modules are not ready")?,
        }
        f.write_str(match self.pending {
            true => "; the next boot will finish the work, or run: dkms autoinstall --pending",
            false => "; the same command goes on with the rest",
        })
    }
}

/// What became of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The steps that were reached, in order.
    pub finished: Vec<Finished>,
    /// What could not be noted or cleaned up, one sentence each.
    pub trouble: Vec<String>,
    /// Set if the run was ended early; then steps are missing above.
    pub interrupted: Option<Interruption>,
    /// What worked, but not as one would wish: no reason for an exit code.
    pub warnings: Vec<String>,
}

impl Report {
    /// The failures.
    pub fn failures(&self) -> impl Iterator<Item = (&Action, &Failure)> {
        self.finished.iter().filter_map(|finished| match &finished.outcome {
            Outcome::Failed(failed) => Some((&finished.step.action, failed)),
            _ => None,
        })
    }

    /// Returns true if everything was done and nothing failed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures().next().is_none() && self.trouble.is_empty() && self.interrupted.is_none()
    }

    /// dkms's exit code: that of the last failure, or 0. Other than dkms's, one failed kernel
    /// among several is never hidden by a later success. An interruption has its own.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if let Some(interruption) = &self.interrupted {
            return interruption.exit_code();
        }
        let last = self.failures().last().map(|(_, failed)| failed.code);
        last.unwrap_or(u8::from(!self.trouble.is_empty()))
    }
}
