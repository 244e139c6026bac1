//! What became of each module in a trial.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::names::{KernelRelease, ModuleId};
use dkms_engine::plan::{Action, Note, Plan};
use dkms_engine::report::{Outcome, Report};
use serde::{Deserialize, Serialize};

/// The result for one module and one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tried {
    /// The module; `None` if the result concerns all modules of the kernel.
    pub(crate) module: Option<ModuleId>,
    /// The kernel; `None` if the result concerns all kernels.
    pub(crate) kernel: Option<KernelRelease>,
    pub(crate) result: TriedResult,
}

/// The result of trying a module for a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TriedResult {
    /// The module builds.
    Builds,
    /// The module does not build.
    Fails(Complaint),
    /// The kernel has no headers, so that no module can be built.
    NoHeaders,
    /// The result is not known, for the reason given.
    Unknown(String),
}

/// Why a module does not build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Complaint {
    pub(crate) message: String,
    /// The line of the log that explains the failure best.
    pub(crate) cause: Option<String>,
    pub(crate) log: Option<PathBuf>,
}

impl Tried {
    /// Returns the log of the build if it failed.
    pub(crate) fn log(&self) -> Option<&Path> {
        match &self.result {
            TriedResult::Fails(complaint) => complaint.log.as_deref(),
            _ => None,
        }
    }
}

/// Returns what became of each module of a trial run.
pub(crate) fn outcomes(machine: &Machine, plan: &Plan, report: &Report) -> Vec<Tried> {
    let left_out = |module: &ModuleId, kernel: Option<&KernelRelease>| {
        let trial = machine.trial.as_ref().zip(kernel);
        trial.is_some_and(|(trial, kernel)| trial.left_out_scripts_of(module, kernel))
    };
    let mut all: Vec<Tried> = plan.notes.iter().filter_map(of_note).collect();
    let mut failed: BTreeSet<(ModuleId, KernelRelease)> = BTreeSet::new();
    for finished in &report.finished {
        let (module, kernel) = match &finished.step.action {
            Action::Build { module, kernel } => (module, Some(kernel)),
            Action::Fail { module, kernel, .. } => (module, kernel.as_ref()),
            _ => continue,
        };
        let result = match &finished.outcome {
            Outcome::Done | Outcome::Declined(_) => TriedResult::Builds,
            Outcome::Failed(_) if left_out(module, kernel) => {
                TriedResult::Unknown("it needs a script that runs only in the transaction".into())
            }
            Outcome::Failed(failure) => of_failure(failure),
            // The module is skipped because a dependency failed.
            Outcome::Skipped(why) if failed.iter().any(|(_, of)| Some(of) == kernel) => {
                TriedResult::Fails(Complaint { message: why.clone(), cause: None, log: None })
            }
            Outcome::Skipped(why) => TriedResult::Unknown(why.clone()),
        };
        if let (TriedResult::Fails(_), Some(kernel)) = (&result, kernel) {
            failed.insert((module.clone(), kernel.clone()));
        }
        all.push(Tried { module: Some(module.clone()), kernel: kernel.cloned(), result });
    }
    all
}

/// Texts in a log of failures that the trial itself may have caused: nothing outside its trees can
/// be written, and programs in headers may need libraries that arrive in the same transaction.
const OWN_FAULTS: [&str; 3] =
    ["Read-only file system", "error while loading shared libraries", "' not found (required by "];

/// A failure that the machine or the trial caused says nothing about the module.
fn of_failure(failure: &Failure) -> TriedResult {
    if failure.transient {
        return TriedResult::Unknown(failure.message.clone());
    }
    let log = failure.log.as_ref().and_then(|log| fs::read(log).ok()).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let is_own_fault = |line: &&str| OWN_FAULTS.iter().any(|fault| line.contains(fault));
    if let Some(line) = log.lines().find(is_own_fault) {
        return TriedResult::Unknown(line.trim().to_owned());
    }
    TriedResult::Fails(Complaint {
        message: failure.message.clone(),
        cause: failure.cause.clone(),
        log: failure.log.clone(),
    })
}

fn of_note(note: &Note) -> Option<Tried> {
    let fails = |message: String, cause: Option<&String>, log: Option<&PathBuf>| {
        TriedResult::Fails(Complaint { message, cause: cause.cloned(), log: log.cloned() })
    };
    let (module, kernel, result) = match note {
        Note::NoHeaders { kernel, .. } | Note::DanglingHeaders { kernel, .. } => {
            (None, kernel, TriedResult::NoHeaders)
        }
        Note::Excluded { module, kernel, why } => {
            (Some(module), kernel, fails(format!("not for this kernel: {why}"), None, None))
        }
        Note::KnownFailure { module, kernel, what, log, .. } => {
            let message = "the build failed before".to_owned();
            (Some(module), kernel, fails(message, Some(what), Some(log)))
        }
        Note::Deferred { module, kernel, needs } => {
            (Some(module), kernel, fails(format!("{needs} is missing"), None, None))
        }
        _ => return None,
    };
    Some(Tried { module: module.cloned(), kernel: Some(kernel.clone()), result })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::source("foo.c:1:1: error: unknown type name 'x'\n", true)]
    #[case::read_only("mkdir: cannot create directory '/opt/x': Read-only file system\n", false)]
    #[case::library("modpost: error while loading shared libraries: libelf.so.2\n", false)]
    #[case::version(
        "modpost: libc.so.6: version `GLIBC_2.99' not found (required by modpost)\n",
        false
    )]
    fn a_failure_of_the_trial_itself_proves_nothing(#[case] log: &str, #[case] fails: bool) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("make.log");
        fs::write(&file, log).unwrap();
        let failure = Failure { log: Some(file), ..Failure::new(10, "make failed") };
        assert_eq!(matches!(of_failure(&failure), TriedResult::Fails(_)), fails);
    }
}
