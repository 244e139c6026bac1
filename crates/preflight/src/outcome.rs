//! The result of a trial for each module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use dkms_engine::failure::Failure;
use dkms_engine::machine::{Machine, Trees};
use dkms_engine::names::{KernelRelease, ModuleId, ModuleName};
use dkms_engine::plan::{Action, Job, Note, Plan};
use dkms_engine::report::{Outcome, Report};
use serde::{Deserialize, Serialize};

use crate::scratch::HEADERS;

/// The results of a trial.
#[derive(Debug)]
pub(crate) struct TrialResults {
    pub(crate) tried: Vec<Tried>,
    /// The package of each arriving kernel.
    pub(crate) packages: BTreeMap<KernelRelease, String>,
}

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
    /// Transactions do not build the module, for the reason given.
    LeftAlone(String),
    /// The result is not known, for the reason given.
    Unknown(String),
}

/// The reason why a module does not build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Complaint {
    pub(crate) message: String,
    /// The line of the log that explains the failure best.
    pub(crate) cause: Option<String>,
    /// The meaning of the line in `cause`.
    pub(crate) means: Option<String>,
    pub(crate) log: Option<PathBuf>,
}

impl Complaint {
    /// Returns a complaint without a log.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), cause: None, means: None, log: None }
    }
}

impl Tried {
    /// Returns the log of a failed build; `None` if the build succeeded or has no log.
    pub(crate) fn log(&self) -> Option<&Path> {
        match &self.result {
            TriedResult::Fails(complaint) => complaint.log.as_deref(),
            _ => None,
        }
    }
}

/// Returns the result for each module after a trial run.
pub(crate) fn outcomes(machine: &Machine, plan: &Plan, report: &Report) -> Vec<Tried> {
    let left_out = |module: &ModuleId, kernel: Option<&KernelRelease>| {
        let trial = machine.trial.as_ref().zip(kernel);
        trial.is_some_and(|(trial, kernel)| trial.left_out_scripts_of(module, kernel))
    };
    let mut all = known_before(plan);
    let mut failed: BTreeSet<(ModuleName, KernelRelease)> = BTreeSet::new();
    for finished in &report.finished {
        let (module, kernel) = match &finished.step.action {
            Action::Build { module, kernel } => (module, Some(kernel)),
            Action::Fail { module, kernel, .. } => (module, kernel.as_ref()),
            _ => continue,
        };
        let result = match &finished.outcome {
            Outcome::Done | Outcome::Declined(_) => TriedResult::Builds,
            Outcome::Failed(_) if left_out(module, kernel) => TriedResult::Unknown(
                "the build needs a script that runs only during the transaction".into(),
            ),
            Outcome::Failed(failure) => match obstacle(&machine.trees, failure) {
                Some(why) => TriedResult::Unknown(why),
                None => of_failure(failure),
            },
            Outcome::Skipped(why) if needs_any(plan, module, kernel, &failed) => {
                TriedResult::Fails(Complaint::new(why))
            }
            Outcome::Skipped(why) => TriedResult::Unknown(why.clone()),
        };
        if let (TriedResult::Fails(_), Some(kernel)) = (&result, kernel) {
            failed.insert((module.name.clone(), kernel.clone()));
        }
        all.push(Tried { module: Some(module.clone()), kernel: kernel.cloned(), result });
    }
    all
}

/// Returns the results that are known before any build.
pub(crate) fn known_before(plan: &Plan) -> Vec<Tried> {
    plan.notes.iter().filter_map(of_note).collect()
}

/// Returns true if a module depends on a module that has failed for the kernel, according to
/// `failed`.
fn needs_any(
    plan: &Plan,
    module: &ModuleId,
    kernel: Option<&KernelRelease>,
    failed: &BTreeSet<(ModuleName, KernelRelease)>,
) -> bool {
    let job = plan.jobs.iter().find(|job| job.module == *module && Some(&job.kernel) == kernel);
    let has_failed =
        |job: &Job, name: &ModuleName| failed.contains(&(name.clone(), job.kernel.clone()));
    job.is_some_and(|job| job.after.iter().chain(&job.with).any(|name| has_failed(job, name)))
}

/// The messages of the dynamic linker (ld.so(8)) about a program in the headers that cannot be
/// started, because it was linked against libraries other than the installed ones.
const LIBRARY_FAULTS: [&str; 2] =
    ["error while loading shared libraries", "' not found (required by "];

/// Returns how the trial itself may have caused a failure, or `None`. In a trial, most directories
/// of the machine are read-only, and only some of the arriving files exist.
fn obstacle(trees: &Trees, failure: &Failure) -> Option<String> {
    let log = failure.log.as_ref().and_then(|log| File::open(log).ok());
    let lines = log.into_iter().flat_map(|log| BufReader::new(log).split(b'\n')).flatten();
    for line in lines {
        let line = String::from_utf8_lossy(&line);
        if line.contains("Read-only file system") {
            return Some(
                "the build writes to a directory that is read-only before the transaction".into(),
            );
        }
        if LIBRARY_FAULTS.iter().any(|fault| line.contains(fault)) {
            return Some(format!(
                "the build needs a library that the transaction may install: {}",
                line.trim()
            ));
        }
    }
    let missing = missing_path(failure.cause.as_deref()?)?;
    let is_complete = |path: &Path| match path.strip_prefix(&trees.install) {
        Ok(inner) => HEADERS.iter().any(|name| inner.iter().nth(1) == Some(name.as_ref())),
        Err(_) => path.starts_with(&trees.source) || path.starts_with(&trees.dkms),
    };
    let why =
        || format!("the build needs {}, which the transaction may install", missing.display());
    (!is_complete(missing)).then(why)
}

/// Returns the absolute path that a line of a log reports as missing.
fn missing_path(line: &str) -> Option<&Path> {
    let (before, _) = line.split_once(": No such file or directory")?;
    let word = before.rsplit([' ', '\'', '"', '`', '‘', '’']).find(|word| !word.is_empty())?;
    word.starts_with('/').then(|| Path::new(word))
}

/// Returns the result for a failed build. A failure that the machine caused says nothing about the
/// module.
fn of_failure(failure: &Failure) -> TriedResult {
    if failure.transient {
        return TriedResult::Unknown(failure.message.clone());
    }
    TriedResult::Fails(Complaint {
        message: failure.message.clone(),
        cause: failure.cause.clone(),
        means: failure.means.as_deref().map(str::to_owned),
        log: failure.log.clone(),
    })
}

fn of_note(note: &Note) -> Option<Tried> {
    let fails = |message: String| TriedResult::Fails(Complaint::new(message));
    let (module, kernel, result) = match note {
        Note::NoHeaders { kernel, .. } | Note::DanglingHeaders { kernel, .. } => {
            (None, kernel, TriedResult::NoHeaders)
        }
        // The kernel has a module of its own that replaces this one.
        Note::Excluded { why, .. } if why.starts_with("OBSOLETE_BY") => return None,
        Note::Excluded { module, kernel, why } => {
            (Some(module), kernel, fails(format!("excluded: {why}")))
        }
        Note::KnownFailure { module, kernel, what, log, .. } => {
            let complaint = Complaint {
                message: "an earlier build failed".to_owned(),
                cause: Some(what.clone()),
                means: None,
                log: Some(log.clone()),
            };
            (Some(module), kernel, TriedResult::Fails(complaint))
        }
        Note::NotAutomatic { module, kernel } => {
            // The command on the second line applies only after the transaction.
            let why = note.to_string().lines().next().unwrap_or_default().to_owned();
            (Some(module), kernel, TriedResult::LeftAlone(why))
        }
        Note::Deferred { module, kernel, needs } => {
            (Some(module), kernel, fails(format!("depends on {needs}, which is not installed")))
        }
        _ => return None,
    };
    Some(Tried { module: module.cloned(), kernel: Some(kernel.clone()), result })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const WRITES: &str = "the build writes to a directory that is read-only before the transaction";

    #[rstest]
    #[case::source("a.c:1: error: implicit declaration", "", None)]
    #[case::header("a.c:1:10: fatal error: linux/a.h: No such file or directory", "", None)]
    #[case::own_file("a.c:1: fatal error: /usr/src/a-1/a.h: No such file or directory", "", None)]
    #[case::headers(
        "cp: cannot stat '/usr/lib/modules/7/build/a': No such file or directory",
        "",
        None
    )]
    #[case::kernel(
        "cp: cannot stat '/usr/lib/modules/7/kernel/a.ko': No such file or directory",
        "",
        Some("the build needs /usr/lib/modules/7/kernel/a.ko, which the transaction may install")
    )]
    #[case::elsewhere(
        "a.c:1: fatal error: /opt/a.h: No such file or directory",
        "",
        Some("the build needs /opt/a.h, which the transaction may install")
    )]
    #[case::no_cause("", "touch: cannot touch '/opt/a': Read-only file system\n", Some(WRITES))]
    #[case::library(
        "make: *** [Makefile:1: a.o] Error 127",
        "modpost: error while loading shared libraries: libelf.so.2\n",
        Some(
            "the build needs a library that the transaction may install: modpost: error while loading \
             shared libraries: libelf.so.2"
        )
    )]
    #[case::library_version(
        "",
        "modpost: libc.so.6: version `GLIBC_9' not found (required by modpost)\n",
        Some(
            "the build needs a library that the transaction may install: modpost: libc.so.6: version \
             `GLIBC_9' not found (required by modpost)"
        )
    )]
    #[case::earlier_line(
        "a.c:1: error: implicit declaration",
        "sh: 1: cannot create /opt/a: Read-only file system\n\na.c:1: error: implicit declaration\n",
        Some(WRITES)
    )]
    fn a_failure_may_be_that_of_the_trial(
        #[case] cause: &str,
        #[case] text: &str,
        #[case] expected: Option<&str>,
    ) {
        let log = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(log.path(), text).expect("a log");
        let failure = Failure {
            cause: (!cause.is_empty()).then(|| cause.to_owned()),
            log: Some(log.path().to_owned()),
            ..Failure::new(10, "make failed")
        };
        assert_eq!(obstacle(&Trees::under(Path::new("/")), &failure).as_deref(), expected);
    }
}
