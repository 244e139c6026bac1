//! What a hook binary is: pacman's targets in, whole lines out, an exit code.

pub mod edge;
pub mod images;
pub mod lines;
pub mod query;
pub mod targets;
pub mod transaction;

pub use edge::{Call, run};
pub use targets::Change;
pub use transaction::{depart, journal, sync};
