//! Renders the timeline of a run as one self-contained HTML page, with a light and a dark theme.
//!
//! The page is also well-formed XML, so that any XML parser can check it.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter, Write};
use std::time::Duration;

use super::{Doing, Row, Timings};
use crate::plan::Action;
use crate::report::{Outcome, Phase};

/// The style sheet of the page.
const STYLE: &str = include_str!("page.css");

/// The key of the chart: the CSS class and the label of each kind of span.
const KEY: [(&str, &str); 10] = [
    ("depending", "waiting for a dependency"),
    ("queued", "waiting for a job slot"),
    ("copying", "copying the source"),
    ("patching", "patching"),
    ("script", "running a script"),
    ("compiling", "compiling"),
    ("checking", "checking"),
    ("finishing", "stripping and compressing"),
    ("installing", "installing"),
    ("other", "other steps"),
];

/// Text that is escaped when displayed, since it may come from a compiler or a package.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                // XML does not allow control characters.
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => f.write_char(' ')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

impl Display for Timings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(
            "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n",
        )?;
        f.write_str("<head>\n<meta charset=\"utf-8\"/>\n")?;
        f.write_str("<meta name=\"viewport\" content=\"width=device-width\"/>\n")?;
        writeln!(f, "<title>dkms: {}</title>\n<style>\n{STYLE}</style>\n</head>", self.headline())?;
        writeln!(f, "<body>\n<h1>{}</h1>", self.headline())?;
        let jobs = if self.jobs == 1 { "one job" } else { "jobs" };
        writeln!(f, "<p class=\"faint\">At most {} {jobs} at a time.</p>", self.jobs)?;
        self.chart(f)?;
        self.table(f)?;
        self.failures(f)?;
        if !self.notes.is_empty() {
            f.write_str("<h2>Notes</h2>\n<ul>\n")?;
            for note in &self.notes {
                writeln!(f, "<li>{}</li>", Escaped(note))?;
            }
            f.write_str("</ul>\n")?;
        }
        f.write_str("</body>\n</html>\n")
    }
}

impl Timings {
    fn headline(&self) -> String {
        let builds = self.rows.values().filter(|row| matches!(row.action, Action::Build { .. }));
        let (count, time) = (builds.count(), Seconds(self.total));
        format!("{count} build{} in {time}", if count == 1 { "" } else { "s" })
    }

    /// Returns the rows in the order in which their work began.
    fn in_order(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.values().collect();
        rows.sort_by_key(|row| {
            let work = row.spans.iter().find(|span| !span.doing.is_waiting());
            work.map_or(Duration::MAX, |span| span.from)
        });
        rows
    }

    /// Returns true if the chart shows `row`: a job, or a step that takes more than one percent of
    /// the run.
    fn has_lane(&self, row: &Row) -> bool {
        row.action.job().is_some() || row.time(|_| true) * 100 > self.total
    }

    /// Returns the horizontal position of a time in the chart, as a percentage of the run.
    fn percent(&self, time: Duration) -> f64 {
        let total = self.total.as_secs_f64();
        if total > 0.0 { (100.0 * time.as_secs_f64() / total).min(100.0) } else { 0.0 }
    }

    fn chart(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let used: BTreeSet<_> = self.spans().map(|span| span.doing.class()).collect();
        f.write_str("<h2>Timeline</h2>\n<div class=\"key\">")?;
        for (class, what) in KEY.iter().filter(|(class, _)| used.contains(class)) {
            write!(f, "<span><i class=\"{class}\"></i>{what}</span>")?;
        }
        f.write_str("</div>\n<div class=\"chart\">\n")?;
        for row in self.in_order().into_iter().filter(|row| self.has_lane(row)) {
            self.lane(f, row)?;
        }
        f.write_str("<div></div><div class=\"axis\">")?;
        for second in ticks(self.total.as_secs_f64()) {
            let at = self.percent(Duration::from_secs_f64(second));
            // The label of a later tick would not fit.
            if at > 95.0 {
                break;
            }
            write!(f, "<span style=\"left:{at:.2}%\">{second} s</span>")?;
        }
        f.write_str("</div>\n<div class=\"name faint\">running jobs")?;
        if !self.load.is_empty() {
            f.write_str(", CPU load")?;
        }
        f.write_str("</div><div class=\"graph\">")?;
        self.graph(f)?;
        f.write_str("</div>\n</div>\n")?;
        self.graph_key(f)
    }

    fn spans(&self) -> impl Iterator<Item = &super::Span> {
        self.rows.values().flat_map(|row| &row.spans)
    }

    fn lane(&self, f: &mut Formatter<'_>, row: &Row) -> fmt::Result {
        let name = Escaped(name(&row.action));
        write!(f, "<div class=\"name\" title=\"{name}\">{name}</div><div class=\"lane\">")?;
        for span in &row.spans {
            let (left, right) = (self.percent(span.from), self.percent(span.to));
            let (class, time) = (span.doing.class(), Seconds(span.to - span.from));
            write!(
                f,
                "<i class=\"{class}\" style=\"left:{left:.2}%;width:{:.2}%\" title=\"{}: {time}\"></i>",
                right - left,
                Escaped(span.doing)
            )?;
        }
        let end = self.percent(row.end().unwrap_or_default());
        let class = if row.has_failed() { "bad" } else { "faint" };
        // Put the label beside the bar if it fits there, otherwise inside.
        let work = row.spans.iter().find(|span| !span.doing.is_waiting());
        let begin = work.map_or(end, |span| self.percent(span.from));
        let (side, at, class) = match (begin, end) {
            (_, ..80.0) => ("left", end, class.to_owned()),
            (10.0.., _) => ("right", 100.0 - begin, format!("before {class}")),
            _ => ("right", 100.0 - end, "within".to_owned()),
        };
        write!(f, "<b class=\"{class}\" style=\"{side}:{at:.2}%\">{}</b>", row.label())?;
        f.write_str("</div>\n")
    }

    /// Writes the graph that shows the number of running jobs and the CPU load.
    fn graph(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("<svg viewBox=\"0 0 100 100\" preserveAspectRatio=\"none\" role=\"img\">")?;
        let most = self.most_running_jobs();
        let mut path = String::from("M0 100");
        for (time, count) in self.running_jobs() {
            let height = 100.0 - 100.0 * share(count, most);
            let x = self.percent(time);
            // A horizontal line up to this time, then a vertical one to the new count.
            let _ = write!(path, "H{x:.2}V{height:.1}");
        }
        write!(f, "<path class=\"busy\" d=\"{path}H100V100Z\"/>")?;
        if !self.load.is_empty() {
            let points = self.load.iter().map(|(time, load)| {
                format!("{:.2} {:.1}", self.percent(*time), 100.0 - 100.0 * load)
            });
            let points: Vec<String> = points.collect();
            write!(f, "<path class=\"load\" d=\"M{}\"/>", points.join("L"))?;
        }
        f.write_str("</svg>")
    }

    fn graph_key(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let most = self.most_running_jobs();
        write!(
            f,
            "<div class=\"key\"><span><i class=\"busy\"></i>running jobs (maximum {most})</span>"
        )?;
        if !self.load.is_empty() {
            write!(f, "<span><i class=\"load\"></i>CPU load (maximum 100%)</span>")?;
        }
        f.write_str("</div>\n")
    }

    /// Returns the times at which the number of running jobs changes, each with the new number.
    fn running_jobs(&self) -> Vec<(Duration, usize)> {
        let work = || self.spans().filter(|span| !span.doing.is_waiting());
        let times: BTreeSet<Duration> = work().flat_map(|span| [span.from, span.to]).collect();
        let count = |time| work().filter(|span| span.from <= time && time < span.to).count();
        times.into_iter().map(|time| (time, count(time))).collect()
    }

    fn most_running_jobs(&self) -> usize {
        self.running_jobs().iter().map(|(_, count)| *count).max().unwrap_or_default()
    }

    fn table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("<h2>Durations</h2>\n<div class=\"wide\"><table>\n<tr><th>Step</th><th>Reason</th><th>Result</th>")?;
        f.write_str("<th class=\"number\">waited</th><th class=\"number\">compiled</th>")?;
        f.write_str("<th class=\"number\">other</th><th class=\"number\">total</th></tr>\n")?;
        for row in self.in_order() {
            let compiled = row.time(|doing| doing == Doing::Building(Phase::Compiling));
            let work = row.time(|doing| !doing.is_waiting());
            let waited = row.time(Doing::is_waiting);
            let class = if row.has_failed() { " class=\"bad\"" } else { "" };
            write!(f, "<tr><td>{}</td><td>{}</td>", Escaped(name(&row.action)), Escaped(&row.why))?;
            write!(f, "<td{class}>{}</td>", Escaped(row.result()))?;
            for time in [waited, compiled, work.saturating_sub(compiled), work] {
                write!(f, "<td class=\"number\">{}</td>", Seconds(time))?;
            }
            f.write_str("</tr>\n")?;
        }
        f.write_str("</table></div>\n")
    }

    fn failures(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let failed: Vec<_> = self.rows.values().filter(|row| row.has_failed()).collect();
        if failed.is_empty() {
            return Ok(());
        }
        f.write_str("<h2>Failures</h2>\n<ul>\n")?;
        for row in failed {
            let Some(Outcome::Failed(failed)) = &row.outcome else { continue };
            write!(f, "<li>{}: {}", Escaped(name(&row.action)), Escaped(&failed.message))?;
            if let Some(cause) = &failed.cause {
                write!(f, "<br/>{}", Escaped(cause))?;
            }
            if let Some(log) = &failed.log {
                write!(f, "<br/><code>{}</code>", Escaped(log.display()))?;
            }
            f.write_str("</li>\n")?;
        }
        f.write_str("</ul>\n")
    }
}

impl Row {
    fn has_failed(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Failed(_)))
    }

    fn result(&self) -> String {
        match &self.outcome {
            None => "not reached".into(),
            Some(Outcome::Done) => "done".into(),
            Some(Outcome::Skipped(why)) => format!("skipped: {why}"),
            Some(Outcome::Declined(why)) => format!("not installed: {why}"),
            Some(Outcome::Failed(_)) => "FAILED".into(),
        }
    }

    /// Returns the label of the row's bar: the working time or the outcome.
    fn label(&self) -> String {
        let work = Seconds(self.time(|doing| !doing.is_waiting()));
        match &self.outcome {
            Some(Outcome::Done | Outcome::Declined(_)) => work.to_string(),
            Some(Outcome::Failed(_)) => format!("FAILED after {work}"),
            Some(Outcome::Skipped(_)) => "skipped".into(),
            None => "not reached".into(),
        }
    }

    fn time(&self, wanted: impl Fn(Doing) -> bool) -> Duration {
        let spans = self.spans.iter().filter(|span| wanted(span.doing));
        spans.map(|span| span.to - span.from).sum()
    }
}

impl Doing {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Depending => "depending",
            Self::Queued | Self::Building(Phase::Waiting) => "queued",
            Self::Building(Phase::Copying) => "copying",
            Self::Building(Phase::Patching) => "patching",
            Self::Building(Phase::Script(_)) => "script",
            Self::Building(Phase::Compiling) => "compiling",
            Self::Building(Phase::Checking) => "checking",
            Self::Building(Phase::Finishing) => "finishing",
            Self::Installing => "installing",
            Self::Other => "other",
        }
    }
}

impl Display for Doing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depending => f.write_str("waiting for a dependency"),
            Self::Queued => f.write_str("waiting for a job slot"),
            Self::Building(phase) => phase.fmt(f),
            Self::Installing => f.write_str("installing"),
            Self::Other => f.write_str("running"),
        }
    }
}

/// A duration, displayed in seconds. Nothing is displayed for less than 5 ms.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.as_secs_f64() {
            ..0.005 => Ok(()),
            seconds if seconds < 0.1 => write!(f, "{seconds:.2} s"),
            seconds => write!(f, "{seconds:.1} s"),
        }
    }
}

/// Returns the name of a row: the module and kernel of a job, or the action of another task.
fn name(action: &Action) -> String {
    match action.job() {
        Some((module, kernel)) => format!("{module} for {kernel}"),
        None => action.to_string(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "the chart needs no precision")]
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Returns the numbers of seconds to mark on the time axis: at most about twelve round numbers.
fn ticks(total: f64) -> Vec<f64> {
    let steps = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];
    let step = steps.into_iter().find(|step| total / step <= 12.0).unwrap_or(7200.0);
    let tick = |number: u32| (f64::from(number) * step * 10.0).round() / 10.0;
    (0..).map(tick).take_while(|second| *second <= total).take(100).collect()
}
