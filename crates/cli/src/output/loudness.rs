//! How much a command says.

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loudness {
    /// Nothing (`-q`).
    Quiet,
    /// What was done, what is to be known, what failed.
    Plain,
    /// Also what is begun and why, and what the compilers said (`--verbose`).
    Verbose,
}
