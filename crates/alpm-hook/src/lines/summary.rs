//! The end of the output: notes, the number of modules, and finally the failures.

use std::io::Write;

use dkms_engine::failure::Failure;
use dkms_engine::names::ModuleId;
use dkms_engine::plan::{Action, Note, Plan, Task};
use dkms_engine::report::{Outcome, Report};

use super::{Lines, package_names};

impl<W: Write> Lines<W> {
    /// Writes the end of a run.
    pub fn summary(&mut self, plan: &Plan, report: &Report) {
        for note in &plan.notes {
            if let Some(text) = self.note(note) {
                self.out.line(&format!("note: {text}"));
            }
        }
        for trouble in &report.trouble {
            self.out.line(&format!("error: {trouble}"));
        }
        for warning in &report.warnings {
            self.out.line(&format!("warning: {warning}"));
        }
        self.count(report.failures().count());
        for finished in &report.finished {
            if let Outcome::Failed(failed) = &finished.outcome {
                let stays = replaced_by(plan, finished.task);
                self.failure(&finished.step.action, failed, stays);
            }
        }
        if let Some(interruption) = &report.interrupted {
            self.out.line(&format!("error: {interruption}"));
        }
    }

    /// Writes the number of modules. A single one has its own line already.
    fn count(&mut self, failures: usize) {
        if failures > 0 {
            self.out.line("");
        }
        let (all, done) = (self.tasks.len(), self.done);
        if all > 1 && done == all {
            self.out.line(&format!("All {all} modules are ready."));
        } else if failures > 0 && all > 1 {
            self.out.line(&format!("{done} of {all} modules are ready. What failed:"));
        }
    }

    /// Returns the text of a note, unless it only says that there is nothing to do.
    fn note(&self, note: &Note) -> Option<String> {
        match note {
            Note::Already { .. } => None,
            Note::NoHeaders { kernel, pkgbase: None, other: None } => {
                let install = self.names.headers_package(kernel)?;
                Some(format!("{kernel} has no headers: install {install}"))
            }
            note => Some(note.to_string()),
        }
    }

    fn failure(&mut self, action: &Action, failed: &Failure, stays: Option<&ModuleId>) {
        let mut message = failed.message.lines();
        let what = self.what_failed(action);
        self.out.line(&format!("error: {what}: {}", message.next().unwrap_or_default()));
        for more in message {
            self.out.line(&format!("  {more}"));
        }
        if let Some(cause) = &failed.cause {
            self.out.line(&format!("  cause:     {cause}"));
        }
        if let Some(log) = &failed.log {
            self.out.line(&format!("  log:       {}", log.display()));
        }
        if let Some(hint) = &failed.hint {
            self.out.line(&format!("  {hint}"));
        }
        if let Some(old) = stays {
            self.out.line(&format!("  until then {} stays installed", package_names::plain(old)));
        }
        if let Some(command) = retry_command(action) {
            self.out.line(&format!("  run:       {command}"));
        }
    }

    fn what_failed(&self, action: &Action) -> String {
        match action {
            Action::Build { module, kernel, .. }
            | Action::Install { module, kernel, .. }
            | Action::Fail { module, kernel: Some(kernel), .. } => {
                format!("{} for {kernel}", self.names.module(module))
            }
            Action::Fail { module, kernel: None, .. } => self.names.module(module),
            action => format!("cannot {action}"),
        }
    }
}

/// Returns the version that a task replaces, and that stays installed if the task fails.
fn replaced_by(plan: &Plan, task: Task) -> Option<&ModuleId> {
    plan.steps_of(task).find_map(|step| match &step.action {
        Action::Install { replaces, .. } => replaces.as_ref(),
        _ => None,
    })
}

/// Returns the command that retries a failed step.
fn retry_command(action: &Action) -> Option<String> {
    match action {
        Action::Build { module, kernel, .. }
        | Action::Install { module, kernel, .. }
        | Action::Fail { module, kernel: Some(kernel), .. } => {
            Some(format!("dkms install {module} -k {kernel} --verbose"))
        }
        Action::Uninstall(module, kernel) | Action::Unbuild(module, kernel) => {
            Some(format!("dkms unbuild {module} -k {kernel}"))
        }
        Action::Deregister(module) => Some(format!("dkms remove {module} --all")),
        Action::Depmod(kernel) => Some(format!("depmod {kernel}")),
        _ => None,
    }
}
