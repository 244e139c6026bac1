//! Why a command line is refused.

use dkms_engine::facts::Problem;

/// What a user is told who is not root.
pub const NOT_ROOT: &str = "this needs to be run by root";

/// Why nothing is done, with dkms's exit code (dkms-behaviour 9).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The exit code.
    pub code: u8,
    /// What is wrong, and what to do about it.
    pub message: String,
}

/// Refuses a command line.
///
/// # Errors
/// Always.
pub fn refuse<T>(code: u8, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { code: problem.code, message: problem.to_string() }
    }
}
