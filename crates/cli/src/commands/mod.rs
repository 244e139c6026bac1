//! The commands.

pub mod archive;
pub mod cache;
pub mod change;
pub mod generate_mok;
pub mod initramfs;
pub mod rpm_upgrade;
pub mod status;
