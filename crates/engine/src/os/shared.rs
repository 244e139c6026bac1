//! Locks data that threads share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `shared`, even if its mutex is poisoned. Meant for data that is valid even after a panic,
/// because each change to it is a single step.
pub(crate) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
