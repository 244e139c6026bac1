//! The table of the causes of failed builds. The file `causes.toml` contains the table and
//! describes its fields.

use std::sync::LazyLock;

use regex::{Captures, Regex, RegexSet};
use serde::Deserialize;

use crate::machine::Kernel;
use crate::names::ModuleId;

/// The kind of problem that made a build fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// The disk is full, or a quota is exceeded.
    DiskFull,
    /// A program could not allocate memory.
    Memory,
    /// The compiler was killed, usually because memory ran out.
    Killed,
    /// A process has too many open files.
    TooManyFiles,
    /// The limit on processes prevented a program from starting another one.
    TooManyProcesses,
    /// A file exceeds the limit on file sizes.
    FileTooLarge,
    /// The machine does not allow programs to be confined.
    NotConfined,
    /// A file cannot be written because its file system is read-only.
    ReadOnly,
    /// A file cannot be read, written or executed.
    Denied,
    /// A download failed.
    Network,
    /// The compiler rejects the source.
    Source,
    /// The linker rejects the objects.
    Link,
    /// A module uses a symbol that the kernel does not export, or does not export to this module.
    Symbol,
    /// A program is not installed.
    MissingProgram,
    /// A patch does not apply.
    Patch,
    /// The Makefile stops with an error.
    Makefile,
    /// An error of another kind.
    Other,
}

/// A cause of failed builds.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, serde(deny_unknown_fields))]
pub struct Cause {
    /// The name, such as `missing-function`.
    pub name: String,
    pub kind: CauseKind,
    /// The rank of a line with this cause, from 1 for a precise line to 3 for a vague one.
    pub rank: u8,
    pattern: String,
    /// Lines with this cause, for the tests.
    #[cfg(test)]
    pub log: Vec<String>,
    means: Option<String>,
    remedy: Option<String>,
    file: Option<String>,
}

/// The texts of a cause for one line of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CauseTexts {
    /// The meaning of the line for the user.
    pub means: Option<String>,
    /// A command after `run: `, a page after `see: `, or advice.
    pub remedy: Option<String>,
    /// The path of the missing file in a package, without a leading `/`.
    pub file: Option<String>,
}

/// A line of a log.
pub enum Line {
    /// An error message, with its cause.
    Error(&'static Cause),
    /// A line that never explains a failure.
    Noise,
    /// Any other line.
    Plain,
}

#[derive(Debug, Default, Deserialize)]
struct CauseTable {
    noise: Vec<String>,
    #[serde(rename = "cause")]
    causes: Vec<Cause>,
}

/// The table with its compiled patterns.
struct CompiledTable {
    causes: Vec<Cause>,
    noise: RegexSet,
    patterns: RegexSet,
}

/// The table of causes. If `causes.toml` is invalid, which a test rules out, the table is empty:
/// failed builds are still reported, instead of causing a panic.
static TABLE: LazyLock<CompiledTable> = LazyLock::new(|| {
    let read = toml::from_str::<CauseTable>(include_str!("causes.toml"));
    let CauseTable { noise, causes } = read.unwrap_or_default();
    let patterns = RegexSet::new(causes.iter().map(|cause| &cause.pattern)).unwrap_or_default();
    CompiledTable { noise: RegexSet::new(noise).unwrap_or_default(), patterns, causes }
});

impl CauseKind {
    /// Returns the name of the limit that was reached, or `None` if the build failed for another
    /// reason.
    #[must_use]
    pub fn limit(self) -> Option<&'static str> {
        match self {
            Self::TooManyFiles => Some("open files (ulimit -n)"),
            Self::TooManyProcesses => Some("processes (ulimit -u, or pids.max of the cgroup)"),
            Self::FileTooLarge => Some("file size (ulimit -f)"),
            _ => None,
        }
    }
}

impl Cause {
    /// Returns the cause shown by `line`, which is a log line or a message from the engine.
    #[must_use]
    pub fn of(line: &str) -> Option<&'static Self> {
        causes_of(line).next()
    }

    /// Returns the cause of this kind that `line` shows, even if another cause applies first.
    #[must_use]
    pub fn of_kind(kind: CauseKind, line: &str) -> Option<&'static Self> {
        causes_of(line).find(|cause| cause.kind == kind)
    }

    /// Returns the texts of the cause for `line`, in a build of `module` for `kernel`. A text is
    /// `None` if the value of one of its placeholders is unknown.
    #[must_use]
    pub fn texts(&self, line: &str, module: &ModuleId, kernel: &Kernel) -> CauseTexts {
        let pattern = Regex::new(&self.pattern).ok();
        let groups = pattern.as_ref().and_then(|pattern| pattern.captures(line));
        let fill = |text: &Option<String>| fill(text.as_ref()?, groups.as_ref(), module, kernel);
        CauseTexts { means: fill(&self.means), remedy: fill(&self.remedy), file: fill(&self.file) }
    }
}

impl Line {
    /// Classifies a line of a log.
    pub fn of(text: &str) -> Self {
        if TABLE.noise.is_match(text) {
            return Self::Noise;
        }
        Cause::of(text).map_or(Self::Plain, Self::Error)
    }
}

/// Returns the causes whose patterns match `line`, in the order of the table.
fn causes_of(line: &str) -> impl Iterator<Item = &'static Cause> {
    TABLE.patterns.matches(line).into_iter().filter_map(|index| TABLE.causes.get(index))
}

/// Replaces the placeholders of `text` with their values. Returns `None` if a value is unknown.
fn fill(
    text: &str,
    groups: Option<&Captures<'_>>,
    module: &ModuleId,
    kernel: &Kernel,
) -> Option<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, (name, after))) =
        rest.split_once('{').and_then(|(before, from)| Some((before, from.split_once('}')?)))
    {
        filled += before;
        filled += &match name {
            "module" => module.to_string(),
            "module_name" => module.name.to_string(),
            "kernel" => kernel.release.to_string(),
            "headers" => format!("{}-headers", kernel.pkgbase.as_ref()?),
            group => groups?.name(group)?.as_str().to_owned(),
        };
        rest = after;
    }
    Some(filled + rest)
}

#[cfg(test)]
mod tests;
