//! The progress of a command: results on standard output, failures on standard error, bars below.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use dkms_engine::failure::Failure;
use dkms_engine::machine::Trees;
use dkms_engine::names::Arch;
use dkms_engine::plan::{Action, Note, Plan, Step};
use dkms_engine::report::{Event, Finished, Outcome, Report, Watch};

use crate::output::bars::{Bars, Screen};
use crate::output::verbosity::Verbosity;

/// Prints the progress of a command.
pub struct Progress<'a> {
    out: Box<dyn Write + 'a>,
    errors: Box<dyn Write + 'a>,
    verbosity: Verbosity,
    trees: &'a Trees,
    arch: &'a Arch,
    bars: Option<Bars>,
}

impl<'a> Progress<'a> {
    /// Prints to `out`, and failures to `errors`; finds logs in `trees`.
    pub fn new(
        out: impl Write + 'a,
        errors: impl Write + 'a,
        verbosity: Verbosity,
        trees: &'a Trees,
        arch: &'a Arch,
    ) -> Self {
        Self { out: Box::new(out), errors: Box::new(errors), verbosity, trees, arch, bars: None }
    }

    /// Shows bars, too; `out` and `errors` must write [above](crate::output::bars::AboveBars) them.
    pub fn with_bars(self, screen: Option<Screen>) -> Self {
        Self { bars: screen.map(Bars::new), ..self }
    }

    /// Writes one line to standard output, except with `-q`. A reader that stopped reading is no
    /// reason to stop working.
    pub fn say(&mut self, line: &str) {
        if self.verbosity != Verbosity::Quiet {
            let _ = self.out.write_all(format!("{line}\n").as_bytes());
        }
    }

    /// Prints the notes of a plan.
    pub fn notes(&mut self, plan: &Plan) {
        for note in &plan.notes {
            match note {
                Note::Already { .. } => self.say(&note.to_string()),
                note => self.note(&note.to_string()),
            }
        }
    }

    /// Prints the problems and warnings of a run that belong to no step.
    pub fn trouble(&mut self, report: &Report) {
        for trouble in &report.trouble {
            self.error(trouble);
        }
        for warning in &report.warnings {
            self.warn(warning);
        }
    }

    /// Writes a note to standard output.
    pub fn note(&mut self, text: &str) {
        self.say(&format!("note: {text}"));
    }

    /// Writes a warning to standard error.
    pub fn warn(&mut self, text: &str) {
        self.complain("warning", text);
    }

    /// Writes an error to standard error.
    pub fn error(&mut self, text: &str) {
        self.complain("error", text);
    }

    fn complain(&mut self, severity: &str, text: &str) {
        if self.verbosity != Verbosity::Quiet {
            let _ = self.errors.write_all(format!("dkms: {severity}: {text}\n").as_bytes());
        }
    }

    fn finished(&mut self, finished: &Finished) {
        let Finished { step, outcome, elapsed, .. } = finished;
        match outcome {
            Outcome::Done => {
                self.make_output(&step.action, None);
                if let Some(line) = done(step, *elapsed) {
                    self.say(&line);
                }
            }
            Outcome::Skipped(why) => self.say(&format!("not done: {}: {why}", step.action)),
            Outcome::Failed(failed) => {
                self.make_output(&step.action, failed.log.as_deref());
                self.error(&failure(&step.action, failed));
            }
        }
    }

    /// Prints the output of make, with `--verbose`.
    fn make_output(&mut self, action: &Action, log: Option<&Path>) {
        let Action::Build { module, kernel, .. } = action else { return };
        if self.verbosity == Verbosity::Verbose {
            let built = || self.trees.built(module, kernel, self.arch).join("log/make.log");
            let log = log.map_or_else(built, Path::to_owned);
            if let Ok(mut log) = fs::File::open(log) {
                let _ = io::copy(&mut log, &mut self.out);
            }
        }
    }
}

impl Watch for Progress<'_> {
    fn event(&mut self, event: &Event<'_>) {
        if let Some(bars) = &mut self.bars {
            bars.event(event);
        }
        match event {
            Event::Planned(_) => {}
            Event::Started { step, .. } if self.verbosity == Verbosity::Verbose => {
                self.say(&format!("{step} ..."));
            }
            Event::Started { .. } | Event::Phase { .. } => {}
            Event::Finished(finished) => self.finished(finished),
            Event::Says(line) => self.say(line),
        }
    }
}

/// Returns the line for a finished step; `None` if another line covers it.
fn done(step: &Step, elapsed: Duration) -> Option<String> {
    let time = elapsed.as_secs_f64();
    Some(match &step.action {
        Action::TakeIn { module, from } => {
            format!("copied the source of {module} from {}", from.display())
        }
        Action::Load { module, build, .. } => {
            format!("took over what was built of {module} for {}", build.kernel)
        }
        Action::Register(module) => format!("added {module}"),
        Action::UseKept(_) | Action::Fail { .. } | Action::Depmod(_) | Action::Leave => {
            return None;
        }
        Action::Adopt { module, kernel, .. } => {
            format!("took over {module} for {kernel} from dkms")
        }
        Action::Build { module, kernel, .. } if step.is_cached() => {
            format!("found {module} for {kernel} in the cache")
        }
        Action::Build { module, kernel, .. } => {
            format!("built {module} for {kernel} in {time:.1} s")
        }
        Action::Install { module, kernel, replaces: None } => {
            format!("installed {module} for {kernel}")
        }
        Action::Install { module, kernel, replaces: Some(old) } => {
            format!("installed {module} for {kernel} in place of {}", old.version)
        }
        Action::Uninstall(module, kernel) => format!("uninstalled {module} from {kernel}"),
        Action::Unbuild(module, kernel) => {
            format!("forgot what was built of {module} for {kernel}")
        }
        Action::Deregister(module) => format!("removed {module}"),
        Action::Sweep(kernel) => format!("removed what was left of {kernel}"),
    })
}

/// Returns the lines for a failed step: the problem, its cause, the log and what to do.
fn failure(action: &Action, failed: &Failure) -> String {
    let mut text = match action {
        Action::Fail { module, kernel: Some(kernel), .. } => {
            format!("{module} for {kernel}: {}", failed.message)
        }
        Action::Fail { module, kernel: None, .. } => format!("{module}: {}", failed.message),
        action => format!("cannot {action}: {}", failed.message),
    };
    if let Some(cause) = &failed.cause {
        text += &format!("\n  cause: {cause}");
    }
    if let Some(log) = &failed.log {
        text += &format!("\n  log:   {}", log.display());
    }
    if let Some(hint) = &failed.hint {
        text += &format!("\n  {hint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use dkms_engine::dkms_tree::Reason;

    use super::*;

    fn said(verbosity: Verbosity, trees: &Trees, outcome: &Outcome) -> (String, String) {
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let arch = "x86_64".parse().expect("a name");
        let module: dkms_engine::names::ModuleId = "foo/1.0".parse().expect("a module");
        let kernel: dkms_engine::names::KernelRelease = "7.2".parse().expect("a release");
        let action = Action::Build { module: module.clone(), kernel: kernel.clone() };
        let plan = Plan {
            before: vec![Step { action, why: vec![Reason::NotBuilt] }],
            notes: vec![Note::Already { module, kernel, state: "built" }],
            ..Plan::default()
        };
        let mut progress = Progress::new(&mut out, &mut errors, verbosity, trees, &arch);
        progress.notes(&plan);
        progress.event(&Event::Planned(&plan));
        for (task, step) in plan.tasks().zip(plan.steps()) {
            progress.event(&Event::Started { task, step });
            let elapsed = Duration::from_millis(3210);
            let outcome = outcome.clone();
            let finished = Finished { task, step: step.clone(), outcome, elapsed };
            progress.event(&Event::Finished(&finished));
        }
        drop(progress);
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(out), text(errors))
    }

    #[test]
    fn says_what_was_done() {
        let trees = Trees::under(Path::new("/nowhere"));
        let (out, errors) = said(Verbosity::Normal, &trees, &Outcome::Done);
        assert_eq!(out, "foo/1.0 is already built for 7.2\nbuilt foo/1.0 for 7.2 in 3.2 s\n");
        assert_eq!(errors, "");
    }

    #[test]
    fn says_what_failed() {
        let root = testroot::TestRoot::new();
        root.write("make.log", "gcc: what?\n");
        let failed = Outcome::Failed(Failure {
            cause: Some("foo.c:1:2: error: no".into()),
            log: Some(root.at("make.log")),
            ..Failure::new(10, "make failed (exit status 2)")
        });
        let trees = Trees::under(root.path());
        let (out, errors) = said(Verbosity::Verbose, &trees, &failed);
        assert!(out.ends_with("build foo/1.0 for 7.2 (not built yet) ...\ngcc: what?\n"), "{out}");
        let log: PathBuf = root.at("make.log");
        let want = format!(
            "dkms: error: cannot build foo/1.0 for 7.2: make failed (exit status 2)\n  \
             cause: foo.c:1:2: error: no\n  log:   {}\n",
            log.display()
        );
        assert_eq!(errors, want);
        assert_eq!(said(Verbosity::Quiet, &trees, &failed), (String::new(), String::new()));
    }
}
