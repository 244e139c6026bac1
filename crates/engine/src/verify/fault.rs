//! A fault of a machine.

use std::fmt;

use serde::Serialize;

use crate::names::{KernelRelease, ModuleId};

/// A fault: a part of the machine that is not as it should be.
///
/// The `Display` text has one line for the problem, and one for the advice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    /// The kernel that the fault concerns; `None` if it concerns no particular kernel.
    pub kernel: Option<KernelRelease>,
    /// The module that the fault concerns; `None` if it concerns no particular module.
    pub module: Option<ModuleId>,
    /// The subject, the problem and the reason, on one line.
    pub problem: String,
    /// The line of advice, usually `run: COMMAND`.
    pub advice: Option<String>,
}

impl Fault {
    /// Creates a fault from a message, which can contain lines of advice below the first line.
    #[must_use]
    pub fn new(
        kernel: Option<&KernelRelease>,
        module: Option<&ModuleId>,
        message: impl AsRef<str>,
    ) -> Self {
        let (problem, advice) = match message.as_ref().split_once('\n') {
            Some((problem, advice)) => (problem, Some(advice)),
            None => (message.as_ref(), None),
        };
        // If there are several lines, such as a cause and a log, the last one is the command.
        let advice = advice.and_then(|lines| lines.lines().last());
        Self {
            kernel: kernel.cloned(),
            module: module.cloned(),
            problem: problem.to_owned(),
            advice: advice.map(|line| line.trim().to_owned()),
        }
    }

    /// Sets the line of advice.
    #[must_use]
    pub fn with_advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)?;
        self.advice.iter().try_for_each(|advice| write!(f, "\n  {advice}"))
    }
}
