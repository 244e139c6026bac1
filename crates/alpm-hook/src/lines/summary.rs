//! The end of a hook's output: notes, errors, warnings, the count of modules, and the failures.

use std::collections::BTreeSet;
use std::io::Write;

use dkms_engine::failure::Failure;
use dkms_engine::names::ModuleId;
use dkms_engine::plan::{Action, Note, Plan};
use dkms_engine::report::{Outcome, Report};

use super::Lines;

impl<W: Write> Lines<W> {
    /// Writes the output that follows the line of the last step.
    pub fn summary(&mut self, plan: &Plan, report: &Report) {
        let notes = plan.notes.iter().filter(|note| !is_covered(note, plan, report));
        let notes: Vec<String> = notes.filter_map(|note| self.note(note)).collect();
        for text in notes {
            self.out.lines(&format!("note: {text}"));
        }
        for finished in &report.finished {
            if let (Some((module, kernel)), Outcome::Declined(why)) =
                (finished.step.action.job(), &finished.outcome)
            {
                let (module, kernel, why) = (module.clone(), kernel.clone(), why.clone());
                self.out.lines(&format!("note: {}", Note::Declined { module, kernel, why }));
            }
        }
        for error in report.errors.iter().filter(|text| !self.told.includes(text)) {
            self.out.lines(&format!("error: {error}"));
        }
        for warning in report.warnings.iter().filter(|text| !self.told.includes(text)) {
            self.out.lines(&format!("warning: {warning}"));
        }
        self.count(report);
        for finished in &report.finished {
            if let Outcome::Failed(failed) = &finished.outcome {
                let stays = plan.replaced_by(finished.task);
                self.failure(&finished.step.action, failed, stays);
            }
        }
        if let Some(interruption) = &report.interrupted {
            self.out.lines(&format!("error: {interruption}"));
        }
    }

    /// Writes the number of installed modules. Writes nothing for a single module, because its own
    /// line already reports the result.
    fn count(&mut self, report: &Report) {
        let failures = report.failures().count();
        if failures > 0 {
            self.out.line("");
        }
        let untried = report.failures().map(|(action, _)| action);
        let untried: Vec<&Action> =
            untried.filter(|action| matches!(action, Action::Fail { .. })).collect();
        let (all, done) = (self.tasks.len() + untried.len(), self.done);
        if all < 2 || (done < all && failures == 0) {
            return;
        }
        // A task is the installation of one module for one kernel.
        let modules = self.tasks.values().map(|task| &task.module);
        let modules = modules.chain(untried.iter().filter_map(|action| action.module()));
        let modules = modules.collect::<BTreeSet<_>>().len();
        let kernels = self.tasks.values().map(|task| &task.kernel);
        let kernels = kernels.chain(untried.iter().filter_map(|action| action.kernel()));
        let kernels = kernels.collect::<BTreeSet<_>>().len();
        let count = |number: usize, what: &str| match number {
            1 => format!("1 {what}"),
            _ => format!("{number} {what}s"),
        };
        let line = if modules == all && done == all {
            format!("{all} modules installed.")
        } else if done == all {
            format!("{} installed for {}.", count(modules, "module"), count(kernels, "kernel"))
        } else if modules == all {
            format!("{} installed, {} not installed. Errors:", count(done, "module"), all - done)
        } else {
            let modules = count(modules, "module");
            format!(
                "{modules} for {}: {} installed, {} not installed. Errors:",
                count(kernels, "kernel"),
                count(done, "build"),
                all - done
            )
        };
        self.out.line(&line);
    }

    /// Returns the text of a note; `None` if the note needs no line.
    fn note(&self, note: &Note) -> Option<String> {
        match note {
            Note::Already { .. } => None,
            note if self.told.includes(&note.to_string()) => None,
            Note::NoHeaders { kernel, package: None, other: None } => {
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
        if let Some(means) = &failed.means {
            self.out.line(&format!("  means: {means}"));
        }
        if let Some(log) = &failed.log {
            self.out.line(&format!("  log: {}", log.display()));
        }
        if let Some(old) = stays {
            self.out.line(&format!("  note: {old} stays installed"));
        }
        if let Some(hint) = &failed.hint {
            self.out.line(&format!("  {hint}"));
        }
        let is_command = |hint: &String| hint.contains("run: ") || hint.contains("dkms explain");
        let has_command = failed.hint.as_ref().is_some_and(is_command);
        if let Some(command) = retry_command(action)
            && !has_command
        {
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

/// Returns true if the report of a failure, or the message about an earlier failure, already says
/// what `note` says.
fn is_covered(note: &Note, plan: &Plan, report: &Report) -> bool {
    let Note::Kept { module, kernel } = note else { return false };
    let remembered = plan.notes.iter().any(|note| {
        matches!(note, Note::KnownFailure { kernel: of, stays: Some(old), .. }
            if (of, old) == (kernel, module))
    });
    remembered
        || report.finished.iter().any(|finished| {
            matches!(finished.outcome, Outcome::Failed(_))
                && finished.step.action.kernel() == Some(kernel)
                && plan.replaced_by(finished.task) == Some(module)
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
        Action::Uninstall { module, kernel, .. } | Action::Unbuild(module, kernel) => {
            Some(format!("dkms unbuild {module} -k {kernel}"))
        }
        Action::Deregister(module) => Some(format!("dkms remove {module} --all")),
        Action::Depmod(kernel) => Some(format!("depmod {kernel}")),
        _ => None,
    }
}
