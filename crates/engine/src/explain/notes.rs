//! Selects the parts of a plan that concern one module for one kernel.

use std::collections::BTreeSet;

use super::ModuleState;
use crate::dkms_tree::{Attempts, PendingWork};
use crate::facts::Facts;
use crate::names::{KernelRelease, ModuleId};
use crate::plan::{Action, Note, Plan, headers_note};

/// Returns the reasons for the state of a module for a kernel, and the next steps. `is_failed` is
/// true if the latest build failed.
pub(super) fn of(
    facts: &Facts,
    plan: &Plan,
    id: &ModuleId,
    kernel: &KernelRelease,
    state: ModuleState,
    is_failed: bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    if !facts.is_alive(kernel) {
        notes.push(without_subject(&headers_note(facts, kernel).to_string(), id, kernel));
    }
    let newest = facts.newest_sources(&BTreeSet::new());
    if let Some(newest) = newest.iter().find(|other| other.name == id.name && **other != id) {
        notes.push(format!("{newest} is the version that is installed automatically"));
    }
    let about = plan.notes.iter().filter_map(|note| about(note, facts, id, kernel, state));
    notes.extend(about.map(|note| without_subject(&note.to_string(), id, kernel)));
    for step in plan.steps() {
        match &step.action {
            Action::Fail { module, kernel: of, failure }
                if module == id && of.as_ref().is_none_or(|of| of == kernel) =>
            {
                notes.push(failure.to_string());
            }
            // autoinstall does not add modules.
            action if action.job() == Some((id, kernel)) && state == ModuleState::NotAdded => {
                notes.push(format!("run: dkms install {id} -k {kernel}"));
            }
            // The explanation of a failure already contains the command that builds the module
            // again.
            action if action.job() == Some((id, kernel)) && !is_failed => {
                notes.push(format!("next: {step}\n  run: dkms autoinstall -k {kernel}"));
            }
            _ => {}
        }
    }
    // A planned build and its installation have the same command, and one note is enough.
    let mut seen = BTreeSet::new();
    notes.retain(|note| seen.insert(note.lines().last().unwrap_or_default().to_owned()));
    if state == ModuleState::Pending {
        let attempts = facts.attempts.get(&PendingWork::install(id, kernel));
        let made = attempts.map_or(0, |attempts| attempts.count);
        notes.push(format!(
            "the next transaction or boot will retry (attempts so far: {made} of {})",
            Attempts::MOST
        ));
    }
    if facts.no_autoinstall && notes.iter().any(|note| note.starts_with("next: ")) {
        notes.push("autoinstall is disabled by /etc/dkms/no-autoinstall".into());
    }
    notes
}

/// Returns the part of a note that concerns a module for a kernel; `None` if no part of the note
/// does.
fn about(
    note: &Note,
    facts: &Facts,
    id: &ModuleId,
    kernel: &KernelRelease,
    state: ModuleState,
) -> Option<Note> {
    let is_missing = state != ModuleState::Installed;
    let concerns = match note {
        // [`super::ExplainedFailure`] covers this.
        Note::KnownFailure { .. } | Note::Already { .. } => false,
        Note::NoHeaders { kernel: of, .. } | Note::DanglingHeaders { kernel: of, .. } => {
            of == kernel && is_missing
        }
        Note::NoKernel { kernel: of, .. } | Note::Copy(of) => of == kernel && is_missing,
        Note::Excluded { module, kernel: of, .. }
        | Note::Declined { module, kernel: of, .. }
        | Note::Kept { module, kernel: of }
        | Note::NotAutomatic { module, kernel: of }
        | Note::Deferred { module, kernel: of, .. }
        | Note::Tied { module, kernel: of, .. }
        | Note::Changed { module, kernel: of, .. } => (module, of) == (id, kernel),
        Note::SourceMissing { module, .. } | Note::Held { module, .. } => module == id,
        Note::Parked(works) => {
            let work = PendingWork::install(id, kernel);
            return works.contains(&work).then(|| Note::Parked([work].into()));
        }
        Note::IncompleteKernel { kernel: of, .. } => of == kernel,
        Note::IncompleteSource(dir) => is_subject(dir, facts, id, kernel),
        Note::IncompletePackage(_) => is_missing,
        Note::Running { left, .. } => left.iter().any(|it| is_subject(it, facts, id, kernel)),
        Note::Problem(text) => {
            text.starts_with(&format!("{id}")) || text.starts_with(kernel.as_str())
        }
    };
    concerns.then(|| note.clone())
}

/// Returns true if `what` is `kernel` or the source directory of the module `id`.
fn is_subject(what: &str, facts: &Facts, id: &ModuleId, kernel: &KernelRelease) -> bool {
    let dir = facts.modules.get(id).map(|module| module.source_dir.as_str());
    what == kernel.as_str() || Some(what.trim_start_matches("/usr/src/")) == dir
}

/// Removes the module and the kernel from the start of a note, because the heading names both.
fn without_subject(note: &str, id: &ModuleId, kernel: &KernelRelease) -> String {
    let subjects = [format!("{id} for {kernel}: "), format!("{id}: "), format!("{kernel}: ")];
    let rest = subjects.iter().find_map(|subject| note.strip_prefix(subject));
    rest.unwrap_or(note).to_owned()
}
