//! Why a command line is refused.

use dkms_engine::failure::Failure;

/// What a user is told who is not root.
pub const NOT_ROOT: &str = "this needs to be run by root";

/// Refuses a command line, with dkms's exit code (dkms-behaviour 9).
///
/// # Errors
/// Always.
pub fn refuse<T>(code: u8, message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::new(code, message))
}
