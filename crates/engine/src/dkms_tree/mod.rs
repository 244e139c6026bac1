//! What the dkms tree holds, `/var/lib/dkms` and its files: states, records, pending work, builds.

pub(crate) mod build_cache;
pub(crate) mod cleanup;
mod failures;
mod inputs;
mod pending;
pub(crate) mod publish;
mod record;
pub(crate) mod staging;
mod state;
mod workplace;

pub use build_cache::{BuildCache, CacheKey, CachedBuild};
pub use failures::KnownFailure;
pub(crate) use failures::forget_failure;
pub use inputs::{Inputs, KernelIdentity, Reason};
pub use pending::{PendingList, PendingWork};
pub use record::{BuiltObject, PlacedObject, Record};
pub(crate) use record::{FILE_NAME, FORMAT};
pub use state::{Added, BuiltFor, SourceState, TreeState};
pub(crate) use workplace::{Workplace, are_private};
