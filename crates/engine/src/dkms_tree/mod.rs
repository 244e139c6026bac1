//! The files of the dkms tree, `/var/lib/dkms`: state, records, pending work, builds.
//!
//! In paths, `T` is the dkms tree, `S` the source tree, `L` the install tree, `M` a module's name,
//! `V` its version, `K` a kernel release and `A` an architecture.

mod attempts;
mod build_cache;
pub(crate) mod cleanup;
mod failures;
mod inputs;
mod inventory;
mod journal;
mod pending;
mod placed;
mod publish;
mod record;
mod staging;
mod state;
mod temporary;
mod workplace;

pub use attempts::Attempts;
pub use build_cache::{BuildCache, CacheKey, CachedBuild};
pub use failures::KnownFailure;
pub(crate) use failures::forget_failure;
pub use inputs::{Inputs, KernelIdentity, Reason};
pub use inventory::Inventory;
pub(crate) use inventory::{INVENTORY, detach_links};
pub(crate) use journal::{Before, Journal, JournalPath};
pub use journal::{Operation, finish as finish_journal, record as record_in_journal};
pub(crate) use pending::NotedImages;
pub use pending::{PendingList, PendingWork};
pub use placed::Placed;
pub(crate) use placed::{Condition, other_compressions, slot};
pub(crate) use publish::publish;
pub use record::{BuiltObject, Record, RefusedObject};
pub(crate) use record::{FILE_NAME, FORMAT};
pub(crate) use staging::{STAGING, remove_staging};
pub use state::{Added, BuiltFor, SourceState, TreeState};
pub(crate) use workplace::Workplace;
