//! Finds the line in a build log that explains why the build failed.

use std::ops::Range;
use std::path::Path;

use super::causes::{Cause, CauseKind, Line};
use super::log_lines::{self, LogLine};

/// The maximum length of the displayed line, in characters.
const MAX_SHOWN: usize = 300;

/// The explanation of a failed build, found in its log.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    /// The cause. `None` if no pattern matched, so that the line is merely the last one.
    pub cause: Option<&'static Cause>,
    /// The line that reports the error.
    pub line: LogLine,
}

impl Diagnosis {
    /// Returns the kind of problem.
    #[must_use]
    pub fn kind(&self) -> CauseKind {
        self.cause.map_or(CauseKind::Other, |cause| cause.kind)
    }

    /// Returns the line without the build directory and without the `***` and `Stop.` of make,
    /// truncated to 300 characters.
    #[must_use]
    pub fn shown(&self, build_dir: &Path) -> String {
        let line = self.line.text.trim().replace(&format!("{}/", build_dir.display()), "");
        let line = line.replace(char::is_control, " ");
        let line = match line.split_once(": *** ") {
            Some((make, message)) if make.starts_with("make") => format!("make: {message}"),
            Some((place, message)) => format!("{place}: {message}"),
            None => line,
        };
        let line = line.strip_suffix("Stop.").unwrap_or(&line).trim_end();
        match line.char_indices().nth(MAX_SHOWN) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line.to_owned(),
        }
    }
}

/// Returns the explanation of a failed step: the first line with the lowest rank in the step's
/// output, which is the byte range `step` of the file `log`.
///
/// If no line matches, the last line that is not noise explains the failure. Returns `None` if
/// there is no such line or if the log cannot be read.
#[must_use]
pub fn read(log: &Path, step: &Range<u64>) -> Option<Diagnosis> {
    let mut found: Option<Diagnosis> = None;
    for line in log_lines::read(log, step) {
        let best = found.as_ref().and_then(|found| found.cause).map(|cause| cause.rank);
        match Line::of(&line.text) {
            Line::Error(cause) if best.is_none_or(|best| cause.rank < best) => {
                found = Some(Diagnosis { cause: Some(cause), line });
                if cause.rank == 1 {
                    break;
                }
            }
            Line::Plain if best.is_none() => found = Some(Diagnosis { cause: None, line }),
            Line::Error(_) | Line::Plain | Line::Noise => {}
        }
    }
    found
}

/// Returns the first message in the file `log` that shows that a program cannot reach a server.
#[must_use]
pub fn network_failure(log: &Path) -> Option<Diagnosis> {
    let lines = log_lines::read(log, &(0..u64::MAX));
    let mut lines = lines.filter(|line| !line.text.starts_with("# command: "));
    lines.find_map(|line| {
        let cause = Cause::of_kind(CauseKind::Network, &line.text)?;
        Some(Diagnosis { cause: Some(cause), line })
    })
}

#[cfg(test)]
mod tests;
