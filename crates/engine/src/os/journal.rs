//! Adds entries to the systemd journal.

use super::process::{Environment, Program, RunError};

/// The severity of an entry (the `PRIORITY` of systemd.journal-fields(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// An error.
    Error = 3,
    /// A warning.
    Warning = 4,
}

/// Adds an entry of one line to the journal. `id` is its MESSAGE_ID, which the catalogue explains.
///
/// # Errors
/// [`RunError`] if logger(1) cannot be run.
pub fn log(env: &Environment, message: &str, id: &str, priority: Priority) -> Result<(), RunError> {
    let priority = priority as u8;
    let entry = format!(
        "MESSAGE={message}\nMESSAGE_ID={id}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=alpm-dkms\n"
    );
    Program::new("logger", env).arg("--journald").stdin(entry).run().map(|_| ())
}
