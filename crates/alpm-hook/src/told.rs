//! Stores the messages and failures that a hook has reported, so that later hooks of the same
//! transaction do not repeat the messages and do not retry the same builds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Transaction, Trees};
use dkms_engine::names::{KernelRelease, ModuleId};
use dkms_engine::os::durable::{self, Durability, FileError};
use dkms_engine::plan::{Action, Note, Plan, Step};
use dkms_engine::report::{Outcome, Report};
use serde::{Deserialize, Serialize};

/// The failures and messages that the hooks of a transaction have reported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The transaction that ran the hook; `None` outside a transaction.
    transaction: Option<Transaction>,
    /// The state of 70-dkms-install.
    install: InstallHook,
    /// The modules that failed or were skipped: module, kernel, and whether the failure was
    /// transient.
    tried: Vec<(String, String, bool)>,
    /// The texts of notes, warnings and errors.
    texts: BTreeSet<String>,
}

/// The state of 70-dkms-install in a transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstallHook {
    /// The hook has ended by itself, or was not run.
    #[default]
    Ended,
    /// 70-dkms-install has started. A later hook finds this value only if 70-dkms-install was
    /// killed.
    Killed,
    /// A signal has ended the hook, and the hook has reported the unfinished work.
    Interrupted,
}

impl Told {
    /// Returns the value for the first hook of a transaction, without messages and failures.
    #[must_use]
    pub fn nothing(trees: &Trees) -> Self {
        Self { transaction: Some(Transaction::of_this_hook(trees)), ..Self::default() }
    }

    /// Records that 70-dkms-install has started, and returns a value without messages and failures.
    #[must_use]
    pub fn start(trees: &Trees) -> Self {
        let nothing = Self::nothing(trees);
        Self { install: InstallHook::Killed, ..nothing.clone() }.write(trees);
        nothing
    }

    /// Reads the messages and failures that an earlier hook of the same transaction reported.
    /// Returns an empty value if no earlier hook has run.
    #[must_use]
    pub fn read(trees: &Trees) -> Self {
        let told: Option<Self> =
            fs::read(path(trees)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let nothing = Self::nothing(trees);
        let is_known = nothing.transaction.as_ref().is_some_and(Transaction::is_known);
        let is_same = |told: &Self| is_known && told.transaction == nothing.transaction;
        told.filter(is_same).unwrap_or(nothing)
    }

    /// Returns the transaction that runs this hook.
    #[must_use]
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// Returns the state of 70-dkms-install in this transaction.
    #[must_use]
    pub fn install_hook(&self) -> InstallHook {
        self.install
    }

    /// Adds messages.
    pub fn add(&mut self, texts: impl IntoIterator<Item = String>) {
        self.texts.extend(texts);
    }

    /// Adds the failures and messages of a run of 70-dkms-install.
    pub fn add_run(&mut self, plan: &Plan, report: &Report) {
        if report.interrupted.is_some() {
            self.install = InstallHook::Interrupted;
        }
        for finished in &report.finished {
            let Step { action, .. } = &finished.step;
            if let (Action::RemoveLeftovers(kernel), Outcome::Skipped(why)) =
                (action, &finished.outcome)
            {
                self.texts.insert(kept_directory(kernel, why));
            }
            let concerns_module = matches!(
                action,
                Action::Build { .. } | Action::Install { .. } | Action::Fail { .. }
            );
            let (Some(module), Some(kernel)) = (action.module(), action.kernel()) else { continue };
            if !concerns_module || finished.outcome == Outcome::Done {
                continue;
            }
            let transient =
                matches!(&finished.outcome, Outcome::Failed(failed) if failed.transient);
            self.tried.push((module.to_string(), kernel.to_string(), transient));
            // The report of the failure says that the old version stays installed.
            if let Some(module) = plan.replaced_by(finished.task).cloned() {
                let note = Note::Kept { module, kernel: kernel.clone() };
                self.texts.insert(note.to_string());
            }
        }
        for note in &plan.notes {
            if let Note::KnownFailure { module, kernel, .. } = note {
                self.tried.push((module.to_string(), kernel.to_string(), false));
            }
            self.texts.insert(note.to_string());
        }
        self.texts.extend(report.errors.iter().chain(&report.warnings).cloned());
    }

    /// Writes the value for a later hook, or removes the file if there is nothing to remember. A
    /// failure to write only makes the later hook repeat messages.
    pub fn write(&self, trees: &Trees) {
        let file = path(trees);
        let is_empty = Self { transaction: self.transaction.clone(), ..Self::default() } == *self;
        let written = if is_empty {
            durable::remove_file_if_there(&file).map(drop)
        } else {
            self.write_to(&file)
        };
        if let Err(error) = written {
            log::info!("{error}");
        }
    }

    fn write_to(&self, file: &Path) -> Result<(), FileError> {
        let text = serde_json::to_vec(self).map_err(io::Error::from);
        let text = text.map_err(FileError::when("write", file))?;
        file.parent().map_or(Ok(()), durable::create_dirs)?;
        // Not synced: only hooks of the same transaction read the file, and a power cut ends the
        // transaction.
        durable::write_with(file, &text, Durability::None)
    }

    /// Returns the messages that have been reported.
    #[must_use]
    pub fn texts(&self) -> &BTreeSet<String> {
        &self.texts
    }

    /// Returns true if an earlier hook has reported `text`.
    #[must_use]
    pub fn includes(&self, text: &str) -> bool {
        self.texts.contains(text)
    }

    /// Returns the pairs of module and kernel that failed or were skipped in an earlier hook, and
    /// whether the failure was transient.
    #[must_use]
    pub fn tried(&self) -> BTreeMap<(ModuleId, KernelRelease), bool> {
        let mut tried = BTreeMap::new();
        for (module, kernel, transient) in &self.tried {
            if let (Ok(module), Ok(kernel)) = (module.parse(), kernel.parse()) {
                *tried.entry((module, kernel)).or_default() |= *transient;
            }
        }
        tried
    }
}

/// Returns the note that the directory of a removed kernel is kept.
pub(crate) fn kept_directory(kernel: &KernelRelease, why: &str) -> String {
    format!("{kernel}: kernel removed; /usr/lib/modules/{kernel} kept: {why}")
}

fn path(trees: &Trees) -> PathBuf {
    trees.dkms.join(".cache/transaction.json")
}
