//! Reads the state of pacman: its transactions and its local database.

mod local_database;
mod mtree;
mod package_owner;
mod packaged_headers;
mod target;
mod transaction;

use local_database::{directory, lists, owners, owners_among, unfinished};
pub(crate) use package_owner::{owner_of, package_of_kernel};
pub(crate) use packaged_headers::PackagedHeaders;
pub use target::Target;
pub use transaction::{Leftovers, Transaction};

/// pacman's database directory unless `pacman.conf` or `--dbpath` names another one.
const DATABASE: &str = "/var/lib/pacman";
