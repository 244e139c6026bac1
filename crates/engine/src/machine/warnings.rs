//! Warnings that a run collects and shows at its end.

use std::sync::{Mutex, PoisonError};

/// What people should know of a run, though nothing failed for it. Any thread may add to it.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Adds a sentence, once.
    pub(crate) fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&text) {
            log::info!("{text}");
            all.push(text);
        }
    }

    /// Takes all that was said so far.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
