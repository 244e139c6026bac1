//! The parts of a hook binary: pacman's targets in, whole lines out, an exit code.

pub mod hook_main;
pub mod images;
pub mod lines;
mod lock;
pub mod package_query;
pub mod targets;
pub mod transaction;

pub use hook_main::{HookArgs, run};
pub use targets::Targets;
pub use transaction::{depart, journal, sync};
