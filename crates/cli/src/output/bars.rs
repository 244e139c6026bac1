//! Draws progress bars on a terminal: a line for each running job with its phase and elapsed time,
//! and a total.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use dkms_engine::plan::{Action, Plan, Step, Task};
use dkms_engine::report::{Event, Phase};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::verbosity::Verbosity;

/// The interval at which elapsed times are redrawn.
const TICK: Duration = Duration::from_millis(250);

/// The lines at the bottom of a terminal that show the bars. [`AboveBars`] writes other output
/// above them.
#[derive(Debug, Clone)]
pub struct Screen {
    lines: MultiProgress,
    /// Whether elapsed times are redrawn at regular intervals.
    ticks: bool,
}

impl Screen {
    /// Returns the terminal of this process; `None` if the process must not draw bars.
    ///
    /// Standard output and standard error must both be that terminal. Otherwise, lines written to
    /// one stream could appear between bars drawn on the other.
    #[must_use]
    pub fn of_this_process(verbosity: Verbosity) -> Option<Self> {
        let is_terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        has_bars(verbosity, is_terminal, env::var_os("TERM").as_deref())
            .then(|| Self::on(ProgressDrawTarget::stderr(), true))
    }

    fn on(target: ProgressDrawTarget, ticks: bool) -> Self {
        Self { lines: MultiProgress::with_draw_target(target), ticks }
    }
}

/// Returns true if bars are drawn on a terminal of the type `term`.
///
/// With `--verbose`, the printed lines already show the progress. Bars also need a terminal that
/// can move the cursor.
fn has_bars(verbosity: Verbosity, is_terminal: bool, term: Option<&OsStr>) -> bool {
    let can_move = term.is_some_and(|term| !term.is_empty() && term != "dumb");
    verbosity == Verbosity::Normal && is_terminal && can_move
}

/// A writer whose lines appear above the bars.
#[derive(Debug)]
pub struct AboveBars<W> {
    to: W,
    screen: Option<Screen>,
}

impl<W> AboveBars<W> {
    /// Creates a writer to `to`. If there is a screen, hides its bars while writing.
    pub fn new(to: W, screen: Option<Screen>) -> Self {
        Self { to, screen }
    }
}

impl<W: Write> Write for AboveBars<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.screen {
            Some(screen) => screen.lines.suspend(|| self.to.write(bytes)),
            None => self.to.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The bars of one run.
pub struct Bars {
    screen: Screen,
    total: Option<ProgressBar>,
    /// The unfinished tasks that build or install a module, each mapped to the number of its
    /// remaining steps.
    open: BTreeMap<Task, usize>,
    running: BTreeMap<Task, ProgressBar>,
}

impl Bars {
    /// Creates bars for `screen`. Draws nothing before the run has been planned.
    #[must_use]
    pub fn new(screen: Screen) -> Self {
        Self { screen, total: None, open: BTreeMap::new(), running: BTreeMap::new() }
    }

    /// Updates the bars after an event of the run.
    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Planned(plan) => self.planned(plan),
            Event::Started { task, step } => {
                let word = match step.action {
                    Action::Build { .. } => "waiting",
                    _ => "installing",
                };
                self.shows(*task, step, &word);
            }
            Event::Phase { task, step, phase, .. } => {
                let bar = self.shows(*task, step, phase);
                if let Some(bar) = bar.filter(|_| *phase == Phase::Copying) {
                    bar.reset_elapsed();
                }
            }
            Event::Finished(finished) => self.step_is_over(finished.task),
            Event::Line(_) => {}
        }
    }

    fn planned(&mut self, plan: &Plan) {
        for task in plan.tasks() {
            let steps = plan.steps_of(task).filter(|step| step.action.job().is_some()).count();
            if steps > 0 {
                self.open.insert(task, steps);
            }
        }
        if !self.open.is_empty() {
            let total = ProgressBar::new(self.open.len() as u64);
            self.total = Some(self.add(total, "{elapsed:>4} [{bar:24}] {pos}/{len}"));
        }
    }

    /// Sets the text of a task's line, and adds the line if it is missing. Returns `None` if the
    /// step neither builds nor installs a module.
    fn shows(&mut self, task: Task, step: &Step, what: &dyn Display) -> Option<&ProgressBar> {
        let (module, kernel) = step.action.job()?;
        let bar = match self.running.remove(&task) {
            Some(bar) => bar,
            None => self.add(ProgressBar::no_length(), "{elapsed:>4} {wide_msg}"),
        };
        bar.set_message(format!("{module} for {kernel}: {what}"));
        Some(self.running.entry(task).or_insert(bar))
    }

    /// Adds a line to the screen: above the total if there is one, otherwise at the bottom.
    fn add(&self, bar: ProgressBar, template: &str) -> ProgressBar {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        let bar = match &self.total {
            Some(total) => self.screen.lines.insert_before(total, bar),
            None => self.screen.lines.add(bar),
        };
        bar.tick();
        // The bar starts a thread, and would panic if that failed.
        let threads = || std::thread::Builder::new().spawn(|| {}).is_ok();
        if self.screen.ticks && threads() {
            bar.enable_steady_tick(TICK);
        }
        bar
    }

    fn step_is_over(&mut self, task: Task) {
        let Some(left) = self.open.get_mut(&task) else { return };
        *left -= 1;
        if *left > 0 {
            return;
        }
        self.open.remove(&task);
        if let Some(bar) = self.running.remove(&task) {
            bar.finish_and_clear();
            self.screen.lines.remove(&bar);
        }
        if let Some(total) = &self.total {
            total.inc(1);
            total.force_draw(); // `inc` may postpone the drawing
        }
    }
}

impl Drop for Bars {
    /// Removes all bars from the terminal.
    fn drop(&mut self) {
        for bar in self.running.values().chain(&self.total) {
            bar.finish_and_clear();
        }
        let _ = self.screen.lines.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use dkms_engine::names::{KernelRelease, ModuleId};
    use dkms_engine::plan::Job;
    use dkms_engine::report::{Finished, Outcome};
    use indicatif::InMemoryTerm;
    use rstest::rstest;

    use super::*;

    fn job(id: &str, is_installed: bool) -> Job {
        let (module, kernel): (ModuleId, KernelRelease) =
            (id.parse().expect("a module"), "7.2".parse().expect("a release"));
        let step = |action| Step { action, why: Vec::new() };
        let build = Action::Build { module: module.clone(), kernel: kernel.clone() };
        let install =
            Action::Install { module: module.clone(), kernel: kernel.clone(), replaces: None };
        Job {
            module,
            kernel,
            after: Vec::new(),
            with: [].into(),
            depends: BTreeMap::new(),
            build: step(build),
            install: is_installed.then(|| step(install)),
        }
    }

    fn started(task: Task, step: &Step) -> Event<'_> {
        Event::Started { task, step }
    }

    fn over(task: Task, step: &Step) -> Finished {
        Finished { task, step: step.clone(), outcome: Outcome::Done, elapsed: Duration::ZERO }
    }

    /// Returns the text on the screen, with `_` in place of the time at the start of each line.
    fn shown(term: &InMemoryTerm) -> String {
        let time = |c: char| c == ' ' || c == 's' || c.is_ascii_digit();
        let contents = term.contents();
        let lines = contents.lines().map(|line| format!("_ {}", line.trim_start_matches(time)));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn shows_a_line_for_each_running_job_and_a_total() {
        let term = InMemoryTerm::new(10, 60);
        let screen = Screen::on(ProgressDrawTarget::term_like(Box::new(term.clone())), false);
        let mut out = AboveBars::new(Vec::new(), Some(screen.clone()));
        let mut bars = Bars::new(screen);
        let jobs = vec![job("foo/1.0", true), job("bar/2", false)];
        let plan = Plan { jobs, ..Plan::default() };
        let (foo, bar) = (Task::Job(0), Task::Job(1));
        let steps: Vec<&Step> = plan.steps().collect();
        bars.event(&Event::Planned(&plan));
        let at = Instant::now();
        bars.event(&started(foo, steps[0]));
        bars.event(&started(bar, steps[2]));
        for phase in [Phase::Copying, Phase::Script("PRE_BUILD")] {
            bars.event(&Event::Phase { task: foo, step: steps[0], phase, at });
        }
        insta::assert_snapshot!(shown(&term), @"
        _ foo/1.0 for 7.2: running PRE_BUILD
        _ bar/2 for 7.2: waiting
        _ [                        ] 0/2
        ");

        bars.event(&Event::Finished(&over(foo, steps[0])));
        bars.event(&started(foo, steps[1]));
        out.write_all(b"said\n").expect("written");
        insta::assert_snapshot!(shown(&term), @"
        _ foo/1.0 for 7.2: installing
        _ bar/2 for 7.2: waiting
        _ [                        ] 0/2
        ");
        bars.event(&Event::Finished(&over(foo, steps[1])));
        insta::assert_snapshot!(shown(&term), @"
        _ bar/2 for 7.2: waiting
        _ [============>           ] 1/2
        ");
        bars.event(&Event::Finished(&over(bar, steps[2])));
        drop(bars);
        assert_eq!(term.contents(), "");
        assert_eq!(out.to, b"said\n");
    }

    #[test]
    fn a_run_without_jobs_has_no_bars() {
        let term = InMemoryTerm::new(10, 60);
        let screen = Screen::on(ProgressDrawTarget::term_like(Box::new(term.clone())), false);
        let mut bars = Bars::new(screen);
        bars.event(&Event::Planned(&Plan::default()));
        assert_eq!(term.contents(), "");
    }

    #[rstest]
    #[case::terminal(Verbosity::Normal, true, Some("xterm"), true)]
    #[case::quiet(Verbosity::Quiet, true, Some("xterm"), false)]
    #[case::verbose(Verbosity::Verbose, true, Some("xterm"), false)]
    #[case::pipe(Verbosity::Normal, false, Some("xterm"), false)]
    #[case::dumb(Verbosity::Normal, true, Some("dumb"), false)]
    #[case::none(Verbosity::Normal, true, None, false)]
    fn bars_need_normal_verbosity_and_a_capable_terminal(
        #[case] verbosity: Verbosity,
        #[case] is_terminal: bool,
        #[case] term: Option<&str>,
        #[case] want: bool,
    ) {
        assert_eq!(has_bars(verbosity, is_terminal, term.map(OsStr::new)), want);
    }
}
