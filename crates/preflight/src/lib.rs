//! Tries, before a transaction, whether the modules build for what it is about to install.
//!
//! Three processes take part. The hook's own process, the *supervisor*, only starts the *worker* and
//! waits for it, so that nothing but a verdict can abort a transaction. The worker finds out which
//! package files arrive and what works now, and compares that with the results of the *trial*. The
//! trial runs in a mount namespace in which everything has already arrived and nothing else can be
//! changed. There, the engine builds the modules as it does after the transaction.
//!
//! | Module | Purpose |
//! |---|---|
//! | `hook` | runs a preflight as a PreTransaction hook |
//! | `command` | runs a preflight for `dkms preflight` |
//! | `session` | runs a worker under the lock |
//! | `supervisor` | starts the worker and ends it in time |
//! | `worker` | finds out what arrives, has it tried, and prints the verdict |
//! | `arriving` | which package files arrive |
//! | `upgrade` | what the next upgrade would bring |
//! | `installed` | what works now |
//! | `trial` | builds the modules in a mount namespace |
//! | `namespace`, `scratch`, `package_file` | the mounts of a trial |
//! | `outcome` | what became of each module |
//! | `critical`, `verdict` | which modules would be lost, and which of these the machine needs |
//! | `advice` | newer sources of the modules that do not build |
//! | `message`, `report` | what the user reads, as text and as JSON |
//! | `expected` | the modules that the next upgrade would lose |
//! | `permission` | the permission to lose modules once |

mod advice;
mod arriving;
pub mod command;
mod critical;
pub mod expected;
mod hook;
mod installed;
mod message;
mod namespace;
mod needs;
mod not_tried;
mod outcome;
mod package_file;
pub mod permission;
mod report;
mod scratch;
mod session;
mod supervisor;
mod trial;
mod upgrade;
mod verdict;
mod worker;

pub use hook::before_transaction;
pub use session::WORKER;
pub use trial::run as try_modules;
pub use worker::{TRIAL, run as work};
