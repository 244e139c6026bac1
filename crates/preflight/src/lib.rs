//! Checks, before a transaction, whether the modules build with the packages that it is about to
//! install.
//!
//! Three processes take part. The hook's own process, the *supervisor*, only starts the *worker*
//! and waits for it, so that nothing but a verdict can abort a transaction. The worker finds the
//! arriving package files, starts the *trial* and prints its verdict. The trial runs in a mount
//! namespace in which the new files are already in place and the rest of the system is read-only.
//! There, the engine builds the modules as it does after the transaction, and the results are
//! compared with the modules that work now.
//!
//! | Module | Purpose |
//! |---|---|
//! | `hook` | runs a preflight as a PreTransaction hook |
//! | `command` | runs a preflight for `dkms preflight` |
//! | `session` | runs a worker with scratch space |
//! | `supervisor` | starts the worker and kills it after the timeout |
//! | `worker` | finds the arriving packages, starts the trial, and prints the verdict |
//! | `arriving` | the arriving package files |
//! | `upgrade` | the packages that the next upgrade would install |
//! | `departing` | the files that the transaction removes |
//! | `installed` | the modules that work now |
//! | `trial` | builds the modules in a mount namespace |
//! | `namespace`, `scratch`, `package_file` | the mounts of a trial |
//! | `scratch_dir` | the directory for scratch space |
//! | `statement` | a source's own statement about kernels |
//! | `outcome` | the result for each module |
//! | `critical`, `verdict` | the modules that would be lost, and those of them that the machine needs |
//! | `advice` | newer sources of the modules that do not build |
//! | `message`, `report` | the output, as text and as JSON |
//! | `expected` | the modules that the next upgrade would lose |
//! | `permission` | the permission to lose modules once |

pub mod advice;
mod arriving;
pub mod command;
mod critical;
mod departing;
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
mod scratch_dir;
mod session;
mod statement;
mod supervisor;
mod trial;
mod upgrade;
mod verdict;
mod worker;

pub use hook::before_transaction;
pub use session::WORKER;
pub use trial::run as try_modules;
pub use worker::{TRIAL, run as work};
