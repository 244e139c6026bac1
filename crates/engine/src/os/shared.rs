//! Locks data that threads share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `shared`, even if its mutex is poisoned. Meant for data whose every change is a single
/// step, so that it is valid after a panic.
pub(crate) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
