//! Explains a failed build from its log.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{compiler, versions};
use crate::building::{self, Cause, CauseKind, CauseTexts, Diagnosis, log_lines};
use crate::dkms_tree::KnownFailure;
use crate::facts::Facts;
use crate::machine::Machine;
use crate::names::{KernelRelease, ModuleId};

/// The number of lines that an excerpt has before and after the marked line.
const AROUND: usize = 3;

/// The number of lines in an excerpt without a marked line.
const END: usize = 12;

/// A failed build, with its meaning and remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedFailure {
    /// The line that explains the failure, or the message if the log has no such line.
    pub problem: String,
    /// The name of the cause, as in `causes.toml`; `None` if it is unknown.
    pub cause: Option<&'static str>,
    /// The meaning of the cause for the user.
    pub means: Option<String>,
    /// Further facts: the other kernels for which the module is built, and a difference between the
    /// kernel's compiler and the one that builds modules.
    pub notes: Vec<String>,
    /// The remedy: `run: ` and a command, `see: ` and a page, or other advice.
    pub remedy: Option<String>,
    /// The path of a missing file, written as in a package: without a leading `/`.
    pub missing_file: Option<String>,
    /// Whether a newer version of the source may build.
    pub needs_newer_source: bool,
    /// The path of the log.
    pub log: PathBuf,
    /// The lines of the log that show the failure. Empty if the log cannot be read.
    pub excerpt: LogExcerpt,
}

/// Consecutive lines of a log.
pub type LogExcerpt = Vec<NumberedLine>;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NumberedLine {
    /// The number of the line, from 1.
    pub number: usize,
    /// The text of the line.
    pub text: String,
    /// Whether this is the line that explains the failure.
    pub is_cause: bool,
}

/// Explains why the latest build of a module for a kernel failed. Returns `None` if that build did
/// not fail.
pub(super) fn of(
    machine: &Machine,
    facts: &Facts,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Option<ExplainedFailure> {
    let trees = &machine.trees;
    let known = KnownFailure::read(&KnownFailure::path(trees, id, kernel, &machine.arch))?;
    let log = trees.failure_log(id, kernel, &machine.arch);
    let diagnosis = building::diagnose_last_step(&log)
        .filter(|found| found.cause.is_some())
        .filter(|found| is_recorded(found, &known, &trees.build(id)));
    let shown = match &diagnosis {
        Some(found) => found.cause.map(|cause| (cause, found.line.text.as_str())),
        // The reason can be a message of the engine, which is not in the log.
        None => Cause::of(&known.what).map(|cause| (cause, known.what.as_str())),
    };
    let about = &facts.kernels.get(kernel)?.kernel;
    let kind = shown.map_or(CauseKind::Other, |(cause, _)| cause.kind);
    let texts = shown.map(|(cause, line)| cause.texts(line, id, about));
    let CauseTexts { means, remedy, file } = texts.unwrap_or_default();
    let needs_newer_source =
        matches!(kind, CauseKind::Source | CauseKind::Symbol | CauseKind::Link | CauseKind::Patch);
    let kernels = needs_newer_source.then(|| versions::other_kernels(facts, id, kernel));
    let depends_on_compiler =
        matches!(kind, CauseKind::Source | CauseKind::Link | CauseKind::MissingProgram);
    let compiler = depends_on_compiler.then(|| compiler::difference(machine, about));
    Some(ExplainedFailure {
        excerpt: excerpt(&log, diagnosis.as_ref()),
        problem: known.what.clone(),
        cause: shown.map(|(cause, _)| cause.name.as_str()),
        means,
        notes: kernels.into_iter().chain(compiler).flatten().collect(),
        remedy,
        missing_file: file,
        needs_newer_source,
        log,
    })
}

/// Returns true if the failure was recorded with the log line in `found`. A line of an earlier
/// step, for example, does not explain a missing object.
fn is_recorded(found: &Diagnosis, known: &KnownFailure, build_dir: &Path) -> bool {
    let is_of_network = found.kind() == CauseKind::Network && known.transient;
    is_of_network || found.shown(build_dir) == known.what
}

/// Returns the lines around the line that explains the failure, or the last lines of the last step
/// if no line explains the failure.
fn excerpt(log: &Path, diagnosis: Option<&Diagnosis>) -> LogExcerpt {
    let step = log_lines::last_step(log);
    let cause = diagnosis.map(|found| found.line.at);
    let lines = log_lines::read(log, &(0..u64::MAX)).zip(1..);
    let mut lines: Vec<NumberedLine> = lines
        .filter(|(line, _)| step.contains(&line.at) || cause == Some(line.at))
        .map(|(line, number)| NumberedLine {
            number,
            text: line.text.replace(char::is_control, " "),
            is_cause: cause == Some(line.at),
        })
        .collect();
    while lines.pop_if(|line| line.text.is_empty()).is_some() {}
    match lines.iter().position(|line| line.is_cause) {
        Some(cause) => {
            lines.truncate(cause + AROUND + 1);
            lines.split_off(cause.saturating_sub(AROUND))
        }
        None => lines.split_off(lines.len().saturating_sub(END)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(log: &str) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), log).unwrap();
        let diagnosis = building::diagnose_last_step(file.path());
        let lines = excerpt(file.path(), diagnosis.filter(|it| it.cause.is_some()).as_ref());
        let mark = |line: &NumberedLine| if line.is_cause { ">" } else { "" };
        lines.iter().map(|line| format!("{}{} {}", mark(line), line.number, line.text)).collect()
    }

    #[test]
    fn shows_the_lines_around_the_cause() {
        let log = "\n# command: make\n1\n2\n3\n4\nx.c:1:1: error: no\n5\n\n# exit code: 2\n";
        assert_eq!(shown(log), ["4 2", "5 3", "6 4", ">7 x.c:1:1: error: no", "8 5"]);
        let earlier = "# command: pre\ncurl: (6) Could not resolve host: a\n# exit code: 0\n\
                       # command: make\ncp: x: No such file or directory\n# exit code: 1\n";
        let want = [">2 curl: (6) Could not resolve host: a", "5 cp: x: No such file or directory"];
        assert_eq!(shown(earlier), want);
    }

    #[test]
    fn shows_the_end_of_a_log_without_a_cause() {
        let output: String = (1..=20).map(|number| format!("line {number}\n")).collect();
        let lines = shown(&format!("# command: make\n{output}\n\n# exit code: 2\n----\n"));
        let (first, last) = (lines.first().unwrap(), lines.last().unwrap());
        assert_eq!((first.as_str(), last.as_str(), lines.len()), ("10 line 9", "21 line 20", END));
    }
}
