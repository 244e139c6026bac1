//! Checks a module's source for mistakes that its author can correct.
//!
//! A rule reports only mistakes that the source proves. The sources in the testbed, which build,
//! have no findings except notes.

mod conf_text;
mod directives;
mod kernel_limits;
mod make;
mod makefile;
mod named_files;
mod objects;
mod package_name;
mod source;
#[cfg(test)]
mod tests;
mod uname;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::failure::Failure;
use crate::machine::Machine;
use crate::names::KernelRelease;

use source::Source;

/// The consequence of a finding for the users of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// dkms refuses the module, or does something other than the source says.
    Error,
    /// The module fails for some users, or with some versions of dkms.
    Warning,
    /// Harmless at present, but worth changing.
    Note,
}

/// A mistake in the source of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The consequence for the users of the module.
    pub severity: Severity,
    /// The file with the mistake, relative to the source directory.
    pub file: PathBuf,
    /// The number of the line with the mistake, from 1. `None` if the mistake is a missing line or
    /// file.
    pub line: Option<usize>,
    /// The mistake, on one line.
    pub problem: String,
    /// The correction, on one line.
    pub remedy: String,
}

impl Finding {
    fn new(severity: Severity, place: Place, problem: String, remedy: impl Into<String>) -> Self {
        let Place { file, line } = place;
        Self { severity, file, line, problem, remedy: remedy.into() }
    }
}

/// A file, relative to the source directory, and the number of a line in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    file: PathBuf,
    line: Option<usize>,
}

/// A rule: returns its findings in a source.
type Rule = fn(&Source) -> Vec<Finding>;

/// All rules.
const RULES: &[Rule] = &[
    directives::refused,
    directives::unknown,
    directives::unused,
    directives::deprecated,
    directives::no_autoinstall,
    package_name::placeholder,
    package_name::split_by_dkms,
    kernel_limits::whole_series,
    kernel_limits::unstated,
    make::fixed_path,
    make::kernel_of_makefile,
    uname::in_conf,
    uname::in_scripts,
    objects::not_in_makefile,
    named_files::scripts,
    named_files::patches,
];

/// Returns the findings in the module source `dir`, sorted by file and line.
///
/// Evaluates the dkms.conf for `kernel`, without the overrides in `/etc/dkms`. Changes nothing.
///
/// # Errors
/// [`Failure`] with exit code 1 if bash cannot be started, and 9 if `dir` contains no dkms.conf. A
/// dkms.conf that cannot be evaluated is a finding.
pub fn lint(
    machine: &Machine,
    dir: &Path,
    kernel: &KernelRelease,
) -> Result<Vec<Finding>, Failure> {
    let source = Source::read(machine, dir, kernel)?;
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&source)).collect();
    findings.sort_by(|a, b| (&a.file, a.line, a.severity).cmp(&(&b.file, b.line, b.severity)));
    Ok(findings)
}
