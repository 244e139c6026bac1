//! The verbosity of a command.

/// The amount of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Nothing (`-q`).
    Quiet,
    /// Results, notes and failures.
    Normal,
    /// Also steps as they begin, with their reasons, and compiler output (`--verbose`).
    Verbose,
}
