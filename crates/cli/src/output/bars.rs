//! Progress bars on a terminal: a line for each running job with its phase and time, and a total.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use dkms_engine::names::{KernelRelease, ModuleId};
use dkms_engine::plan::{Action, Plan};
use dkms_engine::report::{Event, Phase};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::verbosity::Verbosity;

/// The interval at which times are redrawn.
const TICK: Duration = Duration::from_millis(250);

/// The lower part of a terminal, which holds the bars; lines written [above](AboveBars) it scroll.
#[derive(Debug, Clone)]
pub struct Screen {
    lines: MultiProgress,
    /// Whether times are redrawn while nothing else happens.
    ticks: bool,
}

impl Screen {
    /// Returns the terminal of this process, if there is one and it shows bars. Both outputs must be
    /// that terminal, or lines of the one would end up between the bars on the other.
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

/// Returns true if a terminal shows bars: with `--verbose` the lines tell the progress, and bars
/// need cursor movements.
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
    /// Writes to `to`, with the bars out of the way if there are any.
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

/// A module and the kernel that it is built and installed for.
type BarKey = (ModuleId, KernelRelease);

/// The bars of one run.
pub struct Bars {
    screen: Screen,
    total: Option<ProgressBar>,
    /// The number of steps left of each job.
    open: BTreeMap<BarKey, usize>,
    running: BTreeMap<BarKey, ProgressBar>,
}

impl Bars {
    /// Draws bars on `screen` once a job starts.
    #[must_use]
    pub fn new(screen: Screen) -> Self {
        Self { screen, total: None, open: BTreeMap::new(), running: BTreeMap::new() }
    }

    /// Updates the bars.
    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Planned(plan) => self.planned(plan),
            Event::Started(step) => {
                if let Some(job) = job_of(&step.action) {
                    let word = match step.action {
                        Action::Build { .. } => "waiting",
                        _ => "installing",
                    };
                    self.shows(job, &word);
                }
            }
            Event::Phase { step, phase, .. } => {
                if let Some(job) = job_of(&step.action) {
                    let bar = self.shows(job, phase);
                    if *phase == Phase::Copying {
                        bar.reset_elapsed();
                    }
                }
            }
            Event::Finished(finished) => {
                if let Some(job) = job_of(&finished.step.action) {
                    self.step_is_over(&job);
                }
            }
            Event::Says(_) => {}
        }
    }

    fn planned(&mut self, plan: &Plan) {
        for job in plan.steps().filter_map(|step| job_of(&step.action)) {
            *self.open.entry(job).or_default() += 1;
        }
        if !self.open.is_empty() {
            let total = ProgressBar::new(self.open.len() as u64);
            self.total = Some(self.add(total, "{elapsed:>4} [{bar:24}] {pos}/{len}"));
        }
    }

    /// Sets the text of a job's line, which is added if it is missing.
    fn shows(&mut self, job: BarKey, what: &dyn Display) -> &ProgressBar {
        let text = format!("{} for {}: {what}", job.0, job.1);
        let bar = match self.running.remove(&job) {
            Some(bar) => bar,
            None => self.add(ProgressBar::no_length(), "{elapsed:>4} {wide_msg}"),
        };
        bar.set_message(text);
        self.running.entry(job).or_insert(bar)
    }

    /// Adds a line to the screen: jobs in the order in which they start, the total below them.
    fn add(&self, bar: ProgressBar, template: &str) -> ProgressBar {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        let bar = match &self.total {
            Some(total) => self.screen.lines.insert_before(total, bar),
            None => self.screen.lines.add(bar),
        };
        bar.tick();
        if self.screen.ticks {
            bar.enable_steady_tick(TICK);
        }
        bar
    }

    fn step_is_over(&mut self, job: &BarKey) {
        let Some(left) = self.open.get_mut(job) else { return };
        *left -= 1;
        if *left > 0 {
            return;
        }
        self.open.remove(job);
        if let Some(bar) = self.running.remove(job) {
            bar.finish_and_clear();
            self.screen.lines.remove(&bar);
        }
        if let Some(total) = &self.total {
            total.inc(1);
            total.force_draw(); // `inc` may leave it to the next tick
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

fn job_of(action: &Action) -> Option<BarKey> {
    action.job().map(|(module, kernel)| (module.clone(), kernel.clone()))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use dkms_engine::plan::Step;
    use dkms_engine::report::{Finished, Outcome};
    use indicatif::InMemoryTerm;
    use rstest::rstest;

    use super::*;

    fn build(module: &str) -> Step {
        let action = Action::Build {
            module: module.parse().expect("a module"),
            kernel: "7.2".parse().expect("a release"),
        };
        Step { action, why: Vec::new() }
    }

    fn install(module: &str) -> Step {
        let action = Action::Install {
            module: module.parse().expect("a module"),
            kernel: "7.2".parse().expect("a release"),
            replaces: None,
        };
        Step { action, why: Vec::new() }
    }

    fn over(step: &Step) -> Finished {
        Finished { step: step.clone(), outcome: Outcome::Done, elapsed: Duration::ZERO }
    }

    /// Returns the screen without the times at the beginning of each line.
    fn shown(term: &InMemoryTerm) -> String {
        let time = |c: char| c == ' ' || c == 's' || c.is_ascii_digit();
        let contents = term.contents();
        let lines = contents.lines().map(|line| format!("_ {}", line.trim_start_matches(time)));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn shows_what_runs_and_lets_lines_scroll() {
        let term = InMemoryTerm::new(10, 60);
        let screen = Screen::on(ProgressDrawTarget::term_like(Box::new(term.clone())), false);
        let mut out = AboveBars::new(Vec::new(), Some(screen.clone()));
        let mut bars = Bars::new(screen);
        let steps = [build("foo/1.0"), install("foo/1.0"), build("bar/2")];
        bars.event(&Event::Planned(&Plan { before: steps.to_vec(), ..Plan::default() }));
        let at = Instant::now();
        bars.event(&Event::Started(&steps[0]));
        bars.event(&Event::Started(&steps[2]));
        bars.event(&Event::Phase { step: &steps[0], phase: Phase::Copying, at });
        bars.event(&Event::Phase { step: &steps[0], phase: Phase::Script("PRE_BUILD"), at });
        insta::assert_snapshot!(shown(&term), @"
        _ foo/1.0 for 7.2: running PRE_BUILD
        _ bar/2 for 7.2: waiting
        _ [                        ] 0/2
        ");

        bars.event(&Event::Finished(&over(&steps[0])));
        bars.event(&Event::Started(&steps[1]));
        out.write_all(b"said\n").expect("written");
        insta::assert_snapshot!(shown(&term), @"
        _ foo/1.0 for 7.2: installing
        _ bar/2 for 7.2: waiting
        _ [                        ] 0/2
        ");
        bars.event(&Event::Finished(&over(&steps[1])));
        insta::assert_snapshot!(shown(&term), @"
        _ bar/2 for 7.2: waiting
        _ [============>           ] 1/2
        ");
        bars.event(&Event::Finished(&over(&steps[2])));
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
    fn bars_are_for_terminals_that_can(
        #[case] verbosity: Verbosity,
        #[case] is_terminal: bool,
        #[case] term: Option<&str>,
        #[case] want: bool,
    ) {
        assert_eq!(has_bars(verbosity, is_terminal, term.map(OsStr::new)), want);
    }
}
