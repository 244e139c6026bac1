//! Warnings that a run collects and prints when it ends, and messages about files that it logs only
//! once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::os::shared::lock;

/// The maximum number of messages about one file. One error often causes further messages.
const MESSAGES: usize = 5;

/// Warnings for the user about problems that do not make the run fail.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    all: Mutex<Vec<String>>,
    /// The files whose messages have been logged.
    files: Mutex<BTreeSet<PathBuf>>,
    /// The messages that this run, or an earlier hook of the same transaction, has logged.
    pub(super) logged: Mutex<BTreeSet<String>>,
}

impl Warnings {
    /// Adds and logs a warning, unless it has already been added.
    pub(crate) fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut all = lock(&self.all);
        if !all.contains(&text) {
            log::info!("{text}");
            all.push(text);
        }
    }

    /// Logs bash's `messages` about `file` as warnings, unless messages about this file have
    /// already been logged. A dkms.conf is evaluated for each kernel, usually with equal messages.
    pub(crate) fn about(&self, file: &Path, messages: &[String]) {
        let mut files = lock(&self.files);
        if files.insert(file.to_owned()) {
            for message in messages.iter().take(MESSAGES) {
                if lock(&self.logged).insert(message.clone()) {
                    log::warn!("{message}");
                }
            }
        }
    }

    /// Removes and returns all warnings that [`add`](Self::add) has collected.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.all))
    }
}
