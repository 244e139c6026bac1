//! How much a command prints.

/// How much a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loudness {
    /// Nothing (`-q`).
    Quiet,
    /// Results, notes and failures.
    Plain,
    /// Also steps as they begin, with their reasons, and compiler output (`--verbose`).
    Verbose,
}
