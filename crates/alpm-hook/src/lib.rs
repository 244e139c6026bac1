//! Code shared by the hook binaries: reads pacman's targets, acts on them and prints lines.

pub mod hook_main;
pub mod images;
pub mod lines;
mod lock;
pub mod package_query;
pub mod targets;
mod told;
pub mod transaction;

pub use dkms_engine::dkms_tree::Operation;
pub use hook_main::{HookArgs, run, run_or};
pub use targets::Targets;
pub use transaction::{SCRIPT, SyncHook, depart, journal, sync};
