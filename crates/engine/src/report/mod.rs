//! The events of a run and its final report.

pub(crate) mod timings;

use std::fmt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::failure::Failure;
use crate::os::process;
use crate::plan::{Action, Plan, Step, Task};

/// The outcome of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The step was carried out.
    Done,
    /// The step was not carried out, for the reason given.
    Skipped(String),
    /// The module was not installed, because the kernel has the same or a newer one. The text is
    /// the reason.
    Declined(String),
    /// The step failed.
    Failed(Failure),
}

/// A step that has ended, with its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The task that the step belongs to.
    pub task: Task,
    /// The step as planned.
    pub step: Step,
    /// Done, skipped or failed.
    pub outcome: Outcome,
    /// The duration of the step; zero for a step that did not start.
    pub elapsed: Duration,
}

/// A phase of a build. The first phase begins when the build has a jobserver token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Copying the source.
    Copying,
    /// Applying patches.
    Patching,
    /// Running a script. The text is the directive that names the script, such as PRE_BUILD.
    Script(&'static str),
    /// Running make.
    Compiling,
    /// Checking that every object exists and was built for this kernel.
    Checking,
    /// Stripping, signing and compressing the objects.
    Finishing,
    /// Waiting to be built again: alone if memory ran out, otherwise while no other build of the
    /// module runs.
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
            Self::Waiting => f.write_str("waiting to run alone"),
        }
    }
}

/// An event of a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// The plan is about to be carried out.
    Planned(&'a Plan),
    /// A step starts. The build of a job starts when it has a jobserver token.
    Started {
        /// The task that the step belongs to.
        task: Task,
        /// The step as planned.
        step: &'a Step,
    },
    /// A build enters a new phase. The events of parallel builds are interleaved.
    Phase {
        /// The job that contains the build.
        task: Task,
        /// The step that builds the module.
        step: &'a Step,
        /// The phase that begins.
        phase: Phase,
        /// The time at which the phase began. The event may arrive later.
        at: Instant,
    },
    /// A step has ended: it was done, was skipped, or failed.
    Finished(&'a Finished),
    /// One line of output from a module's script or from the engine.
    Line(&'a str),
}

/// An observer of a run.
pub trait Watch {
    /// Handles one event.
    fn event(&mut self, event: &Event<'_>);
}

/// Ignores all events.
impl Watch for () {
    fn event(&mut self, _: &Event<'_>) {}
}

/// The unfinished work of a run that a signal interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interruption {
    /// The signal that interrupted the run.
    pub signal: Signal,
    /// The number of modules that the run was to build or install, counted once for each kernel.
    pub all: usize,
    /// The number of modules in `all` whose build or installation has not finished.
    pub left: usize,
    /// Whether the unfinished work is recorded as pending.
    pub pending: bool,
}

impl Interruption {
    /// Returns 128 plus the signal's number, as a shell does for a program killed by a signal.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        process::exit_code(self.signal)
    }
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by {}: ", self.signal)?;
        match (self.left, self.all) {
            (0, _) => f.write_str("removal not finished")?,
            (1, 1) => f.write_str("module not finished")?,
            (left, all) => write!(f, "{left} of {all} modules not finished")?,
        }
        f.write_str(match self.pending {
            true => {
                "; pending work is finished at the next boot\n  run: dkms autoinstall --pending"
            }
            false => "; run the same command again to finish",
        })
    }
}

/// The result of carrying out a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The finished steps, in the order in which they ended.
    pub finished: Vec<Finished>,
    /// Messages of errors that belong to no step, such as a failure to record pending work or to
    /// clean up.
    pub errors: Vec<String>,
    /// The interruption, or `None` if no signal interrupted the run. After an interruption,
    /// `finished` may lack steps.
    pub interrupted: Option<Interruption>,
    /// Messages that do not affect the exit code.
    pub warnings: Vec<String>,
}

impl Report {
    /// Returns the action and the failure of each failed step.
    pub fn failures(&self) -> impl Iterator<Item = (&Action, &Failure)> {
        self.finished.iter().filter_map(|finished| match &finished.outcome {
            Outcome::Failed(failed) => Some((&finished.step.action, failed)),
            _ => None,
        })
    }

    /// Returns true if the run was not interrupted and had no errors. There may be warnings.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures().next().is_none() && self.errors.is_empty() && self.interrupted.is_none()
    }

    /// Returns the exit code of the run.
    ///
    /// If the run was interrupted or a step failed, the exit code is that of the interruption or of
    /// the last failed step. If there were only other errors, it is 1; if there were none, 0.
    /// Unlike in dkms, a later success never hides an earlier failure.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if let Some(interruption) = &self.interrupted {
            return interruption.exit_code();
        }
        let last = self.failures().last().map(|(_, failed)| failed.code);
        last.unwrap_or(u8::from(!self.errors.is_empty()))
    }
}
