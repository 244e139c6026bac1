//! Turns panics of worker threads into failures.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::failure::Failure;

/// Calls `work` and returns its result, or a failure if it panics.
///
/// Without this, a thread that panics would never report its end, and the run would wait forever.
pub(super) fn without_panic<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("unknown panic");
        Err(Failure::transient(1, format!("internal error in alpm-dkms: {text}")))
    })
}
