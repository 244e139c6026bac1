//! Prints the progress of a command: results on standard output, failures on standard error, and
//! progress bars below both.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use dkms_engine::failure::Failure;
use dkms_engine::machine::Trees;
use dkms_engine::names::Arch;
use dkms_engine::plan::{Action, Note, Plan, Step, Task};
use dkms_engine::report::{Event, Finished, Outcome, Report, Watch};

use crate::output::bars::{Bars, Screen};
use crate::output::verbosity::Verbosity;

/// A printer for the progress of a command.
pub struct Progress<'a> {
    out: Box<dyn Write + 'a>,
    errors: Box<dyn Write + 'a>,
    verbosity: Verbosity,
    trees: &'a Trees,
    arch: &'a Arch,
    bars: Option<Bars>,
    /// The tasks with a step that has failed or was skipped.
    unsuccessful: BTreeSet<Task>,
}

impl<'a> Progress<'a> {
    /// Creates a printer that writes results to `out` and failures to `errors`, and reads build
    /// logs from `trees`.
    pub fn new(
        out: impl Write + 'a,
        errors: impl Write + 'a,
        verbosity: Verbosity,
        trees: &'a Trees,
        arch: &'a Arch,
    ) -> Self {
        Self {
            out: Box::new(out),
            errors: Box::new(errors),
            verbosity,
            trees,
            arch,
            bars: None,
            unsuccessful: BTreeSet::new(),
        }
    }

    /// Adds progress bars on `screen`, if there is one. `out` and `errors` must write [above the
    /// bars](crate::output::bars::AboveBars).
    pub fn with_bars(self, screen: Option<Screen>) -> Self {
        Self { bars: screen.map(Bars::new), ..self }
    }

    /// Writes one line to standard output, except with `-q`. Ignores errors, so that the command
    /// continues even if its output is a closed pipe.
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

    /// Prints the errors and warnings in `report` that do not belong to a particular step.
    pub fn errors_and_warnings(&mut self, report: &Report) {
        for error in &report.errors {
            self.error(error);
        }
        for warning in &report.warnings {
            self.warn(warning);
        }
    }

    /// Writes a note to standard output, except with `-q`.
    pub fn note(&mut self, text: &str) {
        self.say(&format!("note: {text}"));
    }

    /// Writes a warning to standard error, except with `-q`.
    pub fn warn(&mut self, text: &str) {
        self.complain("warning", text);
    }

    /// Writes an error to standard error, except with `-q`.
    pub fn error(&mut self, text: &str) {
        self.complain("error", text);
    }

    fn complain(&mut self, severity: &str, text: &str) {
        if self.verbosity != Verbosity::Quiet {
            let _ = self.errors.write_all(format!("dkms: {severity}: {text}\n").as_bytes());
        }
    }

    fn finished(&mut self, finished: &Finished) {
        let Finished { task, step, outcome, elapsed } = finished;
        match outcome {
            Outcome::Done => {
                self.make_output(&step.action, None);
                if let Some(line) = done(step, *elapsed) {
                    self.say(&line);
                }
            }
            Outcome::Declined(why) => {
                if let Some((module, kernel)) = step.action.job() {
                    let (module, kernel, why) = (module.clone(), kernel.clone(), why.clone());
                    self.note(&Note::Declined { module, kernel, why }.to_string());
                }
            }
            // The report of the build, which comes first, says why the module is not installed.
            Outcome::Skipped(_) if self.unsuccessful.contains(task) => {}
            Outcome::Skipped(why) => {
                self.unsuccessful.insert(*task);
                self.say(&format!("skipped: {}: {why}", step.action));
            }
            Outcome::Failed(failed) => {
                self.unsuccessful.insert(*task);
                self.make_output(&step.action, failed.log.as_deref());
                self.error(&failure(&step.action, failed));
            }
        }
    }

    /// With `--verbose`, prints the output of make for a build. Reads it from the file `log` or, if
    /// that is `None`, from the log in the dkms tree.
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
            Event::Line(line) => self.say(line),
        }
    }
}

/// Returns the line for a successful step; `None` if the step needs no line of its own.
fn done(step: &Step, elapsed: Duration) -> Option<String> {
    let time = elapsed.as_secs_f64();
    Some(match &step.action {
        Action::ImportSource { module, from } => {
            format!("copied the source of {module} from {}", from.display())
        }
        Action::Load { module, build, .. } => {
            format!("imported the build of {module} for {}", build.kernel)
        }
        Action::Register(module) => format!("added {module}"),
        Action::UseKept(_) | Action::Fail { .. } | Action::Depmod(_) | Action::Leave => {
            return None;
        }
        Action::Adopt { module, kernel, .. } => {
            format!("adopted {module} for {kernel} from dkms")
        }
        Action::Build { module, kernel, .. } if step.is_cached() => {
            format!("restored {module} for {kernel} from the cache")
        }
        Action::Build { module, kernel, .. } => {
            format!("built {module} for {kernel} in {time:.1} s")
        }
        Action::Install { module, kernel, replaces: None } => {
            format!("installed {module} for {kernel}")
        }
        Action::Install { module, kernel, replaces: Some(old) } => {
            format!("installed {module} for {kernel}, replacing {}", old.version)
        }
        Action::Uninstall { module, kernel, .. } => {
            format!("uninstalled {module} from {kernel}")
        }
        Action::Unbuild(module, kernel) => {
            format!("deleted the build of {module} for {kernel}")
        }
        Action::Deregister(module) => format!("removed {module}"),
        Action::RemoveLeftovers(kernel) => format!("removed leftover files of {kernel}"),
    })
}

/// Returns the lines for a failed step: the problem, its cause, the log and the hint.
fn failure(action: &Action, failed: &Failure) -> String {
    let mut text = match action {
        Action::Build { module, kernel }
        | Action::Install { module, kernel, .. }
        | Action::Fail { module, kernel: Some(kernel), .. } => {
            format!("{module} for {kernel}: {}", failed.message)
        }
        Action::Fail { module, kernel: None, .. } => format!("{module}: {}", failed.message),
        action => format!("cannot {action}: {}", failed.message),
    };
    if let Some(cause) = &failed.cause {
        text += &format!("\n  cause: {cause}");
    }
    if let Some(means) = &failed.means {
        text += &format!("\n  means: {means}");
    }
    if let Some(log) = &failed.log {
        text += &format!("\n  log: {}", log.display());
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

    /// Returns the standard output and standard error for a build with this outcome.
    fn printed(verbosity: Verbosity, trees: &Trees, outcome: &Outcome) -> (String, String) {
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
    fn prints_finished_steps() {
        let trees = Trees::under(Path::new("/nowhere"));
        let (out, errors) = printed(Verbosity::Normal, &trees, &Outcome::Done);
        assert_eq!(out, "foo/1.0: already built for 7.2\nbuilt foo/1.0 for 7.2 in 3.2 s\n");
        assert_eq!(errors, "");
    }

    #[test]
    fn prints_failures() {
        let root = testroot::TestRoot::new();
        root.write("make.log", "gcc: what?\n");
        let failed = Outcome::Failed(Failure {
            cause: Some("foo.c:1:2: error: no".into()),
            log: Some(root.at("make.log")),
            ..Failure::new(10, "make failed (exit status 2)")
        });
        let trees = Trees::under(root.path());
        let (out, errors) = printed(Verbosity::Verbose, &trees, &failed);
        assert!(out.ends_with("build foo/1.0 for 7.2 (not built yet) ...\ngcc: what?\n"), "{out}");
        let log: PathBuf = root.at("make.log");
        let want = format!(
            "dkms: error: foo/1.0 for 7.2: make failed (exit status 2)\n  \
             cause: foo.c:1:2: error: no\n  log: {}\n",
            log.display()
        );
        assert_eq!(errors, want);
        assert_eq!(printed(Verbosity::Quiet, &trees, &failed), (String::new(), String::new()));
    }
}
