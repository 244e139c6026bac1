//! The timeline of a run: the phases of each job, and the times at which the job waited.

mod cpu_load;
mod html;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::names::ModuleName;
use crate::os::durable::FileError;
use crate::plan::{Action, Plan, Step, Task};
use crate::report::{Event, Finished, Outcome, Phase, Watch};
use cpu_load::Load;

/// A [`Watch`] that records a run for the HTML page, and passes all events on to another `Watch`.
pub(crate) struct Recorder<'a> {
    watch: &'a mut dyn Watch,
    begun: Instant,
    timings: Timings,
    load: Load,
}

impl<'a> Recorder<'a> {
    /// Starts recording a run with at most `jobs` parallel jobs.
    pub(crate) fn new(watch: &'a mut dyn Watch, jobs: usize) -> Self {
        let begun = Instant::now();
        let timings = Timings { jobs, ..Timings::default() };
        Self { watch, begun, timings, load: Load::watch(begun) }
    }

    /// Ends the recording and writes the HTML page to `file`.
    ///
    /// # Errors
    /// [`FileError`] if the page cannot be written.
    pub(crate) fn write(self, file: &Path) -> Result<(), FileError> {
        let Self { begun, mut timings, load, .. } = self;
        timings.total = begun.elapsed();
        timings.load = load.end();
        // The file is not replaced by renaming, since it may be /dev/stdout or a symbolic link.
        fs::write(file, timings.to_string()).map_err(FileError::when("write", file))
    }
}

impl Watch for Recorder<'_> {
    fn event(&mut self, event: &Event<'_>) {
        self.timings.hear(event, self.begun, Instant::now());
        self.watch.event(event);
    }
}

/// The recorded timeline, displayed as an HTML page. All times are relative to the start of the
/// run.
#[derive(Debug, Default)]
struct Timings {
    /// The maximum number of parallel jobs.
    jobs: usize,
    rows: BTreeMap<Task, Row>,
    /// The notes of the plan, as messages.
    notes: Vec<String>,
    /// Samples of the CPU load, each with its time. The load is 1 if all processors are busy.
    load: Vec<(Duration, f64)>,
    total: Duration,
}

/// The timeline of one task of the plan.
#[derive(Debug)]
struct Row {
    /// The action of the task's first step.
    action: Action,
    /// The dependencies that the task waits for; empty unless the task is a job.
    after: Vec<ModuleName>,
    why: String,
    spans: Vec<Span>,
    /// The current activity and its start; `None` if the task is idle.
    open: Option<(Doing, Duration)>,
    outcome: Option<Outcome>,
}

/// A period in which a task has one activity.
#[derive(Debug, PartialEq, Eq)]
struct Span {
    doing: Doing,
    from: Duration,
    to: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Waiting for a dependency.
    Depending,
    /// Waiting for a jobserver token.
    Queued,
    Building(Phase),
    Installing,
    /// A step other than a build or an installation.
    Other,
}

impl Timings {
    fn hear(&mut self, event: &Event<'_>, begun: Instant, now: Instant) {
        let since = |time: Instant| time.saturating_duration_since(begun);
        match event {
            Event::Planned(plan) => self.planned(plan),
            Event::Started { task, step } => self.started(*task, &step.action, since(now)),
            Event::Phase { task, phase, at, .. } => {
                if let Some(row) = self.rows.get_mut(task) {
                    let doing = match phase {
                        Phase::Waiting => Doing::Queued,
                        phase => Doing::Building(*phase),
                    };
                    row.turns_to(Some(doing), since(*at));
                }
            }
            Event::Finished(finished) => self.finished(finished, since(now)),
            Event::Line(_) => {}
        }
    }

    fn planned(&mut self, plan: &Plan) {
        self.notes.extend(plan.notes.iter().map(ToString::to_string));
        for task in plan.tasks() {
            let after = match task {
                Task::Job(number) => plan.jobs[number].after.clone(),
                Task::Before(_) | Task::After(_) => Vec::new(),
            };
            if let Some(first) = plan.steps_of(task).next() {
                self.rows.insert(task, Row::of(first, after));
            }
        }
    }

    fn started(&mut self, task: Task, action: &Action, now: Duration) {
        let ready = self.ready(task).min(now);
        let Some(row) = self.rows.get_mut(&task) else { return };
        match action {
            Action::Build { .. } => {
                row.open = Some((Doing::Depending, Duration::ZERO));
                row.turns_to(Some(Doing::Queued), ready);
            }
            Action::Install { .. } => row.turns_to(Some(Doing::Installing), now),
            _ => row.turns_to(Some(Doing::Other), now),
        }
    }

    /// Returns the time at which the last dependency of a job ended; zero if the job has no
    /// dependencies.
    fn ready(&self, task: Task) -> Duration {
        let Some(Row { after, action, .. }) = self.rows.get(&task) else { return Duration::ZERO };
        let dependencies = self.rows.values().filter(|row| {
            let name = row.action.module().map(|module| &module.name);
            row.action.kernel() == action.kernel() && name.is_some_and(|name| after.contains(name))
        });
        dependencies.filter_map(Row::end).max().unwrap_or_default()
    }

    fn finished(&mut self, finished: &Finished, now: Duration) {
        let Finished { task, step, outcome, elapsed } = finished;
        let Some(row) = self.rows.get_mut(task) else { return };
        // Each attempt to build starts with copying, so the last copying span belongs to the
        // current attempt.
        let current = row.current(now);
        let mut spans = row.spans.iter().chain(&current).rev();
        let begun = spans.find(|span| span.doing == Doing::Building(Phase::Copying));
        let begun = begun.map(|span| span.from);
        // The event can arrive late, so the end is computed from the start and the elapsed time.
        let is_build = matches!(step.action, Action::Build { .. });
        let end = begun.filter(|_| is_build).map_or(now, |begun| now.min(begun + *elapsed));
        row.turns_to(None, end);
        // A skipped installation must not hide the failure of its build.
        if row.outcome.as_ref().is_none_or(|before| *before == Outcome::Done) {
            row.outcome = Some(outcome.clone());
        }
    }
}

impl Row {
    fn of(step: &Step, after: Vec<ModuleName>) -> Self {
        let why: Vec<String> = step.why.iter().map(ToString::to_string).collect();
        Self {
            action: step.action.clone(),
            after,
            why: why.join("; "),
            spans: Vec::new(),
            open: None,
            outcome: None,
        }
    }

    /// Ends the current activity at the time `now`, and starts the activity `doing`, if given.
    fn turns_to(&mut self, doing: Option<Doing>, now: Duration) {
        if let Some(span) = self.current(now)
            && span.from < span.to
        {
            self.spans.push(span);
        }
        self.open = doing.map(|doing| (doing, now));
    }

    fn current(&self, now: Duration) -> Option<Span> {
        self.open.map(|(doing, from)| Span { doing, from, to: now.max(from) })
    }

    /// Returns the end of the last span; `None` if there are no spans.
    fn end(&self) -> Option<Duration> {
        self.spans.last().map(|span| span.to)
    }
}

impl Doing {
    /// Returns true for activities in which the task does no work.
    fn is_waiting(self) -> bool {
        matches!(self, Self::Depending | Self::Queued)
    }
}
