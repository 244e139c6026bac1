//! Warnings that a run collects and prints when it ends.

use std::sync::{Mutex, PoisonError};

/// Warnings for the user about problems that do not make the run fail.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Adds and logs a warning, unless it has already been added.
    pub(crate) fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&text) {
            log::info!("{text}");
            all.push(text);
        }
    }

    /// Removes and returns all warnings.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
