//! Prints the output of commands.

pub mod bars;
pub mod console;
pub mod progress;
pub mod status_lines;
pub mod verbosity;
