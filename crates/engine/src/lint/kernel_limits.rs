//! Rules about the kernels that a source supports, and BUILD_EXCLUSIVE_KERNEL_MIN and _MAX.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use super::source::Source;
use super::{Finding, Place, Severity};
use crate::conf::BUILD;

/// A limit on the kernels that a source supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Min,
    Max,
}

impl Limit {
    fn directive(self) -> &'static str {
        match self {
            Self::Min => "BUILD_EXCLUSIVE_KERNEL_MIN",
            Self::Max => "BUILD_EXCLUSIVE_KERNEL_MAX",
        }
    }

    /// Returns true if the dkms.conf sets this limit, or a pattern that may include it.
    fn is_set(self, source: &Source) -> bool {
        source.sets(self.directive())
            || source.sets("BUILD_EXCLUSIVE_KERNEL")
            || (self == Self::Max && source.sets("OBSOLETE_BY"))
    }
}

/// Reports a BUILD_EXCLUSIVE_KERNEL_MAX such as `6.12`: it also excludes 6.12.1, because dkms
/// compares whole releases (dkms-behaviour 11.1, 13).
pub(super) fn whole_series(source: &Source) -> Vec<Finding> {
    let name = Limit::Max.directive();
    let is_series = |text: &str| {
        let parts: Vec<_> = text.split('.').collect();
        parts.len() == 2 && parts.iter().all(|part| part.parse::<u32>().is_ok())
    };
    let series = source.values.elements(name).filter(|(_, text)| is_series(text.trim()));
    let finding = |(index, text): (usize, &str)| {
        let text = text.trim();
        let problem = format!("{name} is {text}, which excludes {text}.1 and all later {text}.x");
        let remedy = format!("if {text}.x is supported, set it to {text}.999");
        Finding::new(Severity::Note, source.at(name, index), problem, remedy)
    };
    series.map(finding).collect()
}

/// Reports a limit that the source states but the dkms.conf does not set. Adds a note if the
/// dkms.conf sets no restriction at all.
pub(super) fn unstated(source: &Source) -> Vec<Finding> {
    if source.conf.is_none() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for limit in [Limit::Min, Limit::Max] {
        if limit.is_set(source) {
            continue;
        }
        if let Some((place, statement)) = stated(source, limit) {
            let name = limit.directive();
            let problem = format!("{statement}, but dkms.conf does not set {name}");
            findings.push(Finding::new(Severity::Warning, place, problem, format!("set {name}")));
        }
    }
    let is_restriction = |name: &str| name.starts_with("BUILD_EXCLUSIVE_") || name == "OBSOLETE_BY";
    if findings.is_empty() && !source.values.iter().any(|(name, ..)| is_restriction(name)) {
        let problem = "no BUILD_EXCLUSIVE_* directive: dkms tries to build for every kernel";
        let remedy = "set BUILD_EXCLUSIVE_KERNEL_MIN and BUILD_EXCLUSIVE_CONFIG to the module's requirements";
        findings.push(Finding::new(
            Severity::Note,
            source.in_conf(None),
            problem.to_owned(),
            remedy,
        ));
    }
    findings
}

/// Returns the first statement of `limit` in the source: in OpenZFS's file META, or as a version
/// check with `#error` in a C file.
fn stated(source: &Source, limit: Limit) -> Option<(Place, String)> {
    let meta = source.file(Path::new("META")).unwrap_or_default();
    let field = match limit {
        Limit::Min => "Linux-Minimum:",
        Limit::Max => "Linux-Maximum:",
    };
    let mut lines = meta.lines().enumerate();
    if let Some((at, line)) = lines.find(|(_, line)| line.trim_start().starts_with(field)) {
        let place = Place { file: "META".into(), line: Some(at + 1) };
        return Some((place, line.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    c_files(source).into_iter().find_map(|file| {
        let text = source.file(&file)?;
        let (line, statement) = version_check(&text, limit)?;
        Some((Place { file, line: Some(line) }, format!("{statement} causes an #error")))
    })
}

/// Returns the C files in the directories of the objects. Other directories may contain programs
/// that dkms does not build.
fn c_files(source: &Source) -> BTreeSet<PathBuf> {
    let records = source.conf.iter().flat_map(|conf| &conf.records);
    let dirs = records.filter_map(|record| record.built_location.strip_prefix(BUILD).ok());
    let dirs: BTreeSet<&Path> = dirs.chain([Path::new("")]).collect();
    let is_c = |path: &PathBuf| path.extension().is_some_and(|end| end == "c" || end == "h");
    let names = dirs.into_iter().flat_map(|dir| {
        let entries = fs::read_dir(source.dir.join(dir)).into_iter().flatten().flatten();
        entries.map(|entry| dir.join(entry.file_name()))
    });
    names.filter(is_c).collect()
}

/// A comparison of LINUX_VERSION_CODE with a version, in either order.
static CHECK: LazyLock<Option<Regex>> = LazyLock::new(|| {
    // No distribution with dkms 3 has Linux 2.
    let version = r"KERNEL_VERSION\s*\(\s*(?:[3-9]|\d\d)\s*,\s*\d+\s*,\s*\d+\s*\)";
    let pattern = format!(
        r"^#\s*if\s*\(?\s*(?:LINUX_VERSION_CODE\s*(<=?|>=?)\s*{version}|{version}\s*(<=?|>=?)\s*LINUX_VERSION_CODE)\s*\)?\s*$"
    );
    Regex::new(&pattern).ok()
});

/// Returns the line number and the condition of the first check for `limit` that is followed by
/// `#error`. Ignores checks within other conditions, unless these are include guards.
fn version_check(text: &str, limit: Limit) -> Option<(usize, String)> {
    let mut open = Vec::new();
    let mut lines = text.lines().map(str::trim).enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let Some(directive) = line.strip_prefix('#').map(str::trim_start) else { continue };
        if directive.starts_with("endif") {
            open.pop();
        } else if directive.starts_with("if") {
            let next = lines.peek().and_then(|(_, next)| next.strip_prefix('#'));
            let fails = next.is_some_and(|next| next.trim_start().starts_with("error"));
            let is_outermost = open.iter().all(|guard| *guard);
            if fails && is_outermost && limit_of(line) == Some(limit) {
                let condition = directive.trim_start_matches("if").trim();
                return Some((at + 1, condition.to_owned()));
            }
            open.push(directive.starts_with("ifndef"));
        }
    }
    None
}

/// Returns the limit that an `#error` after the `#if` in `line` sets.
fn limit_of(line: &str) -> Option<Limit> {
    let found = CHECK.as_ref()?.captures(line)?;
    match (found.get(1), found.get(2)) {
        (Some(operator), _) if operator.as_str().starts_with('<') => Some(Limit::Min),
        (Some(_), _) => Some(Limit::Max),
        (None, Some(operator)) if operator.as_str().starts_with('>') => Some(Limit::Min),
        (None, _) => Some(Limit::Max),
    }
}
