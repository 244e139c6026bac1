//! What a hook binary is: pacman's targets in, whole lines out, an exit code.

pub mod hook_main;
pub mod images;
pub mod lines;
pub mod package_query;
pub mod targets;
pub mod transaction;

pub use hook_main::{Call, run};
pub use targets::Change;
pub use transaction::{depart, journal, sync};
