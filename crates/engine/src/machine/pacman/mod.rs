//! pacman as other processes see it: its transactions and its local database.

mod local_database;
mod target;
mod transaction;

pub(crate) use local_database::owners;
pub use target::Target;
pub use transaction::Transaction;
