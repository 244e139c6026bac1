//! The amount of output, as set by `-q` and `--verbose`.

/// The amount of output of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Nothing (`-q`).
    Quiet,
    /// Results, notes and failures.
    Normal,
    /// In addition, each step and its reasons as the step begins, and compiler output
    /// (`--verbose`).
    Verbose,
}
