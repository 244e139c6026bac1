//! `dkms explain`: explains the state of a module, with advice.
//!
//! The command takes no lock and needs no privileges if the files are readable.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use dkms_engine::explain::{ExplainedFailure, Explanation, ModuleState, explain};
use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::names::{ModuleName, ModuleVersion};
use dkms_engine::os::process::{Environment, Program};
use preflight::{advice, expected};
use serde::Serialize;

use crate::args::subject::Target;
use crate::output::console::Console;

/// The time limit for pacman, which searches its file databases.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An explanation, with advice that draws on the package databases.
#[derive(Debug, Serialize)]
struct Explained {
    #[serde(flatten)]
    explanation: Explanation,
    /// The advice, one text for each option.
    advice: Vec<String>,
}

/// Runs the command and returns the exit code.
///
/// # Errors
/// [`Failure`] with exit code 3 if there is no such module.
pub fn run(
    machine: &mut Machine,
    module: &ModuleName,
    version: Option<&ModuleVersion>,
    kernels: Option<Vec<Target>>,
    json: bool,
    console: &Console,
) -> Result<u8, Failure> {
    let mut all = Vec::new();
    match kernels {
        None => all = explain(machine, module, version, None)?,
        Some(targets) => {
            for Target { kernel, arch } in targets {
                machine.arch = arch;
                all.extend(explain(machine, module, version, Some(&[kernel]))?);
            }
        }
    }
    for loss in expected::read(&machine.trees) {
        // The arriving kernel has no explanation of its own, since it is not installed.
        if let Some(last) = all.iter_mut().rev().find(|it| it.id() == loss.module) {
            last.notes.push(expected::message(&[loss].into()));
        }
    }
    let explained = |explanation| Explained { advice: advise(machine, &explanation), explanation };
    let all: Vec<Explained> = all.into_iter().map(explained).collect();
    let text = if json {
        serde_json::to_string_pretty(&all).map(|text| text + "\n").unwrap_or_default()
    } else if all.is_empty() {
        "no kernel installed\n".to_owned()
    } else {
        all.iter().map(text).collect::<Vec<_>>().join("\n")
    };
    console.print(&text);
    Ok(0)
}

/// Returns the advice for a failure: the remedy of its cause, the package of a missing file, a
/// newer source, and the command that builds the module again.
fn advise(machine: &Machine, explanation: &Explanation) -> Vec<String> {
    let Some(failure) = &explanation.failure else { return Vec::new() };
    let id = explanation.id();
    let newer = failure.needs_newer_source.then(|| advice::newer_source(machine, &id)).flatten();
    // The line about a newer source is more precise than general advice.
    let has_reference = |remedy: &String| remedy.contains("run: ") || remedy.contains("see: ");
    let remedy = failure.remedy.clone().filter(|it| newer.is_none() || has_reference(it));
    let package = failure.missing_file.as_ref().map(|file| match packages_of(machine, file) {
        packages if packages.is_empty() => {
            format!("to find the package of {file}, run: pacman -Fy && pacman -F {file}")
        }
        packages => format!("run: pacman -S {}", packages.join(", or: pacman -S ")),
    });
    let mut advice: Vec<String> = [remedy, package, newer].into_iter().flatten().collect();
    let kernel = &explanation.kernel;
    let is_installed = machine.trees.install.join(kernel).is_dir();
    if is_installed && !advice.iter().any(|text| text.contains("run: dkms ")) {
        advice.push(format!("to retry the build, run: dkms install {id} -k {kernel}"));
    }
    advice
}

/// Returns the packages that contain a file, according to pacman's file databases. Returns an empty
/// list if the machine has no file databases (`pacman -Fy` downloads them).
fn packages_of(machine: &Machine, file: &str) -> Vec<String> {
    let env = Environment::fixed();
    let root = &machine.trees.root;
    let root = (root != Path::new("/")).then(|| ["--root".into(), root.clone()]);
    let ended = Program::new("pacman", &env)
        .args(root.into_iter().flatten())
        .args(["-Fq", "--", file])
        .deadline(TIMEOUT)
        .run();
    let output = ended.map(|ended| ended.output).unwrap_or_default();
    // Each line is `repository/package`.
    let names = String::from_utf8_lossy(&output);
    names.lines().filter_map(|line| Some(line.trim().rsplit_once('/')?.1.to_owned())).collect()
}

fn text(explained: &Explained) -> String {
    let Explained { explanation, advice } = explained;
    let mut text = heading(explanation);
    if let Some(failure) = &explanation.failure {
        write_failure(&mut text, failure);
    }
    for note in explanation.notes.iter().chain(advice) {
        for line in note.lines() {
            let _ = writeln!(text, "  {}", line.trim_start());
        }
    }
    text
}

fn heading(explanation: &Explanation) -> String {
    let Explanation { kernel, state, .. } = explanation;
    let failed = match (state, &explanation.failure) {
        (ModuleState::Failed, _) | (_, None) => "",
        (_, Some(_)) => "; the latest build failed",
    };
    format!("{} for {kernel}: {}{failed}\n", explanation.id(), state.name())
}

fn write_failure(text: &mut String, failure: &ExplainedFailure) {
    let _ = writeln!(text, "  cause: {}", failure.problem);
    match (&failure.means, failure.cause) {
        (Some(means), _) => drop(writeln!(text, "  means: {means}")),
        (None, None) => text.push_str("  means: unknown\n"),
        (None, Some(_)) => {}
    }
    for note in &failure.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    let _ = writeln!(text, "  log: {}", failure.log.display());
    for line in &failure.excerpt {
        let mark = if line.is_cause { '>' } else { ' ' };
        let _ = writeln!(text, "  {mark}{:>5}  {}", line.number, line.text);
    }
}

#[cfg(test)]
mod tests {
    use dkms_engine::explain::NumberedLine;

    use super::*;

    fn failure() -> ExplainedFailure {
        let line =
            |number, text: &str, is_cause| NumberedLine { number, text: text.to_owned(), is_cause };
        ExplainedFailure {
            problem: "x.c:1: error: no".into(),
            cause: Some("compiler-error"),
            means: Some("the source does not compile".into()),
            notes: vec!["foo/1.0 is built for 7.1".into()],
            remedy: None,
            missing_file: None,
            needs_newer_source: true,
            log: "/var/lib/dkms/.log/foo.log".into(),
            excerpt: vec![line(9, "  CC [M] x.o", false), line(10, "x.c:1: error: no", true)],
        }
    }

    fn printed(state: ModuleState, failure: Option<ExplainedFailure>, notes: &[&str]) -> String {
        let explanation = Explanation {
            module: "foo".parse().expect("a name"),
            version: "1.0".parse().expect("a version"),
            kernel: "7.2".parse().expect("a release"),
            state,
            notes: notes.iter().map(|note| (*note).to_owned()).collect(),
            failure,
        };
        text(&Explained { explanation, advice: vec!["run: pacman -Syu".into()] })
    }

    #[test]
    fn marks_the_line_that_explains_a_failure() {
        insta::assert_snapshot!(printed(ModuleState::Failed, Some(failure()), &[]), @"
        foo/1.0 for 7.2: failed
          cause: x.c:1: error: no
          means: the source does not compile
          note: foo/1.0 is built for 7.1
          log: /var/lib/dkms/.log/foo.log
               9    CC [M] x.o
          >   10  x.c:1: error: no
          run: pacman -Syu
        ");
    }

    #[test]
    fn says_that_a_cause_is_unknown() {
        let unknown = ExplainedFailure { cause: None, means: None, ..failure() };
        let text = printed(ModuleState::Installed, Some(unknown), &[]);
        assert!(
            text.starts_with("foo/1.0 for 7.2: installed; the latest build failed\n"),
            "{text}"
        );
        assert!(text.contains("\n  means: unknown\n"), "{text}");
    }

    #[test]
    fn indents_the_lines_of_notes() {
        insta::assert_snapshot!(
            printed(ModuleState::Added, None, &["no kernel headers\n  run: pacman -S linux-headers"]),
            @"
        foo/1.0 for 7.2: added, not built
          no kernel headers
          run: pacman -S linux-headers
          run: pacman -Syu
        "
        );
    }
}
