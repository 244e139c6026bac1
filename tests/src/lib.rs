//! What stories are told with: a fresh copy of the testbed's ready root, real pacman in it, and eyes to look around.
//!
//! ```no_run
//! use stories::{Root, find};
//! let root = Root::ready();
//! root.install(&[find("linux-1"), find("linux-headers-1"), find("bbswitch")]);
//! assert_eq!(root.placed(find("linux-1").release()), ["updates/dkms/bbswitch.ko.zst"]);
//! ```

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a story that cannot go on fails by panicking"
)]

mod boot;
mod inspect;
mod packages;
mod recipe;
mod root;
mod run;

pub use inspect::{Compilers, Picture};
pub use packages::{PackageFile, find, stage};
pub use recipe::Recipe;
pub use root::Root;
pub use run::{Completed, Started};
