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

/// Adds a one-line entry to the journal. `id` is the entry's MESSAGE_ID, under which the journal's
/// catalogue explains the message.
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
