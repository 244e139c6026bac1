//! Operating system services: files, directory trees, processes, bash and digests.

pub mod bash;
pub(crate) mod copy_tree;
pub mod digest;
pub mod durable;
pub(crate) mod jobserver;
pub mod journal;
pub mod limits;
pub mod mount_table;
pub(crate) mod parallel;
pub mod paths;
pub(crate) mod pin;
pub mod process;
pub(crate) mod shared;
pub(crate) mod stat;
pub mod symlinks;
pub(crate) mod toml_file;
pub(crate) mod unsynced;
pub(crate) mod walk;
