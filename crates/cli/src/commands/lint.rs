//! `dkms lint`: reports mistakes in the source of a module.

use std::path::Path;

use dkms_engine::archive;
use dkms_engine::failure::Failure;
use dkms_engine::lint::{Finding, Severity, lint};
use dkms_engine::machine::Machine;
use serde::Serialize;

use crate::args::refusal::refuse;
use crate::args::subject::{Subject, Target};
use crate::output::console::Console;

/// The options of `dkms lint`.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether to print JSON.
    pub json: bool,
    /// Whether a warning makes the command fail.
    pub strict: bool,
}

/// The output of `dkms lint --json`.
#[derive(Serialize)]
struct Listing<'a> {
    /// The findings, sorted by file and line.
    findings: &'a [Finding],
}

/// Prints the findings in the source at `path`, and returns 1 if one of them is an error (or, with
/// `strict`, a warning), otherwise 0. Takes no lock and changes nothing.
///
/// # Errors
/// [`Failure`] if there is no source at `path`.
pub fn run(
    machine: &mut Machine,
    path: &Subject,
    target: Target,
    options: Options,
    console: &Console,
) -> Result<u8, Failure> {
    machine.arch = target.arch;
    let findings = match path {
        Subject::Module(id) => {
            return refuse(2, format!("{id}: not a path (expected a directory or an archive)"));
        }
        Subject::Directory(dir) => {
            let findings = lint(machine, dir, &target.kernel)?;
            console.print(&text(&findings, dir, options.json));
            findings
        }
        Subject::Archive(file) => {
            let unpacked = archive::unpack(machine, file)?;
            let named = |why: Failure| Failure {
                message: format!("{}: {}", file.display(), why.message),
                ..why
            };
            let source = archive::source_in(unpacked.path()).map_err(named)?;
            let findings = lint(machine, &source, &target.kernel)?;
            let inside = source.strip_prefix(unpacked.path()).unwrap_or(&source);
            console.print(&text(&findings, inside, options.json));
            findings
        }
    };
    let fails = |it: &Finding| {
        it.severity == Severity::Error || (options.strict && it.severity == Severity::Warning)
    };
    Ok(u8::from(findings.iter().any(fails)))
}

/// Formats the findings. In text output, each path begins with `dir`; in JSON, it is relative to
/// `dir`.
fn text(findings: &[Finding], dir: &Path, json: bool) -> String {
    if json {
        let listing = Listing { findings };
        return serde_json::to_string_pretty(&listing).map(|text| text + "\n").unwrap_or_default();
    }
    let mut text = String::new();
    for Finding { severity, file, line, problem, remedy } in findings {
        let line = line.map(|line| format!(":{line}")).unwrap_or_default();
        let file = dir.join(file);
        let severity = word(*severity, 1);
        text += &format!("{severity}: {}{line}: {problem}; {remedy}\n", file.display());
    }
    text + &counts(findings) + "\n"
}

/// Returns the number of findings of each severity, such as "1 error, 2 warnings".
fn counts(findings: &[Finding]) -> String {
    let severities = [Severity::Error, Severity::Warning, Severity::Note].into_iter();
    let counts = severities.filter_map(|severity| {
        let count = findings.iter().filter(|it| it.severity == severity).count();
        (count > 0).then(|| format!("{count} {}", word(severity, count)))
    });
    match counts.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "no mistakes found".to_owned(),
        counts => counts,
    }
}

fn word(severity: Severity, count: usize) -> String {
    let word = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    format!("{word}{}", if count == 1 { "" } else { "s" })
}
