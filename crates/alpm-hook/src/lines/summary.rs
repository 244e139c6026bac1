//! The end of a hook's output: notes, errors, warnings, the count of modules, and the failures.

use std::io::Write;

use dkms_engine::failure::Failure;
use dkms_engine::names::ModuleId;
use dkms_engine::plan::{Action, Note, Plan, Task};
use dkms_engine::report::{Outcome, Report};

use super::Lines;

impl<W: Write> Lines<W> {
    /// Writes the output that follows the line of the last step.
    pub fn summary(&mut self, plan: &Plan, report: &Report) {
        for note in &plan.notes {
            if let Some(text) = self.note(note) {
                self.write_lines(&format!("note: {text}"));
            }
        }
        for finished in &report.finished {
            if let (Some((module, kernel)), Outcome::Declined(why)) =
                (finished.step.action.job(), &finished.outcome)
            {
                let (module, kernel, why) = (module.clone(), kernel.clone(), why.clone());
                self.write_lines(&format!("note: {}", Note::Declined { module, kernel, why }));
            }
        }
        for trouble in &report.trouble {
            self.write_lines(&format!("error: {trouble}"));
        }
        for warning in &report.warnings {
            self.write_lines(&format!("warning: {warning}"));
        }
        self.count(report);
        for finished in &report.finished {
            if let Outcome::Failed(failed) = &finished.outcome {
                let stays = replaced_by(plan, finished.task);
                self.failure(&finished.step.action, failed, stays);
            }
        }
        if let Some(interruption) = &report.interrupted {
            self.write_lines(&format!("error: {interruption}"));
        }
    }

    /// Writes a message, which can have several lines.
    pub(super) fn write_lines(&mut self, text: &str) {
        text.lines().for_each(|line| self.out.line(line));
    }

    /// Writes the number of installed modules. Writes nothing for a single module, because its own
    /// line already reports the result.
    fn count(&mut self, report: &Report) {
        let failures = report.failures().count();
        if failures > 0 {
            self.out.line("");
        }
        let untried =
            report.failures().filter(|(action, _)| matches!(action, Action::Fail { .. })).count();
        let (all, done) = (self.tasks.len() + untried, self.done);
        if all > 1 && done == all {
            self.out.line(&format!("{all} modules installed."));
        } else if failures > 0 && all > 1 {
            self.out.line(&format!("{done} of {all} modules installed. Errors:"));
        }
    }

    /// Returns the text of a note; `None` if the note needs no line.
    fn note(&self, note: &Note) -> Option<String> {
        match note {
            Note::Already { .. } => None,
            Note::NoHeaders { kernel, pkgbase: None, other: None } => {
                let install = self.names.headers_package(kernel)?;
                Some(format!("{kernel}: no kernel headers installed\n  run: pacman -S {install}"))
            }
            note => Some(note.to_string()),
        }
    }

    fn failure(&mut self, action: &Action, failed: &Failure, stays: Option<&ModuleId>) {
        let mut message = failed.message.lines();
        let what = self.subject(action);
        self.out.line(&format!("error: {what}: {}", message.next().unwrap_or_default()));
        for more in message {
            self.out.line(&format!("  {}", more.trim_start()));
        }
        if let Some(cause) = &failed.cause {
            self.out.line(&format!("  cause: {cause}"));
        }
        if let Some(log) = &failed.log {
            self.out.line(&format!("  log: {}", log.display()));
        }
        if let Some(hint) = &failed.hint {
            self.out.line(&format!("  {hint}"));
        }
        if let Some(old) = stays {
            self.out.line(&format!("  note: {old} stays installed"));
        }
        if let Some(command) = retry_command(action) {
            self.out.line(&format!("  run: {command}"));
        }
    }

    fn subject(&self, action: &Action) -> String {
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

/// Returns the version that a task replaces. That version stays installed if the task fails.
fn replaced_by(plan: &Plan, task: Task) -> Option<&ModuleId> {
    plan.steps_of(task).find_map(|step| match &step.action {
        Action::Install { replaces, .. } => replaces.as_ref(),
        _ => None,
    })
}

/// Returns the command that retries a failed step; `None` if no command can.
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
