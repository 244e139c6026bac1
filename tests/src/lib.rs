//! The testbed for stories: a fresh machine to run real pacman in, and functions that inspect it.
//!
//! ```no_run
//! use stories::{Root, find};
//! let root = Root::ready();
//! root.install(&[find("linux-1"), find("linux-headers-1"), find("bbswitch")]);
//! assert_eq!(root.installed_objects(find("linux-1").release()), ["updates/dkms/bbswitch.ko.zst"]);
//! ```

#![expect(clippy::expect_used, clippy::panic, reason = "a story fails by panicking")]

mod alarm;
mod boot;
mod disk;
mod inspect;
mod packages;
mod recipe;
mod repository;
mod root;
mod run;

pub use alarm::alarm_kernel;
pub use disk::{DiskMachine, Powered};
pub use inspect::{Compilers, Snapshot};
pub use packages::{PackageFile, find, real_mkinitcpio, stage};
pub use recipe::Recipe;
pub use root::Root;
pub use run::{Completed, Started};
