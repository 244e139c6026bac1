//! Rules about MAKE and the Makefiles that it runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::makefile::{Makefile, Origin, is_fixed_kernel_path};
use super::source::Source;
use super::{Finding, Place, Severity};
use crate::os::paths;

/// A call of make in MAKE that reads a Makefile of the source.
struct Call {
    /// The directory in which make runs, relative to the source directory.
    dir: PathBuf,
    /// The names of the variables that the call sets, including those that dkms adds.
    given: Vec<String>,
}

/// Reports a MAKE that builds for one fixed kernel regardless of the target.
pub(super) fn fixed_path(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, text) in source.values.elements("MAKE") {
        if source.make_depends_on_kernel(index) {
            continue;
        }
        let fixed = words(text).find(|word| {
            let path = word.rsplit_once('=').map_or(word.as_str(), |(_, path)| path);
            is_fixed_kernel_path(path)
        });
        if let Some(word) = fixed {
            let problem = format!("MAKE[{index}] builds for one kernel only: {word}");
            let place = source.at("MAKE", index);
            findings.push(Finding::new(Severity::Error, place, problem, "use $kernel_source_dir"));
        }
    }
    findings
}

/// Reports a Makefile that builds for the running kernel or a fixed one, because MAKE does not pass
/// the target kernel. Also reports a Makefile that has no rule to run when dkms calls it.
pub(super) fn kernel_of_makefile(source: &Source) -> Vec<Finding> {
    if source.is_changed_before_make() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, text) in source.values.elements("MAKE") {
        let mut calls = calls(text, &source.in_dkms_tree);
        while let Some(Call { dir, given }) = calls.pop() {
            let Some(makefile) = Makefile::of_make(source, &dir) else { continue };
            if !seen.insert(makefile.path.clone()) {
                continue;
            }
            let below = makefile.subdirectories().into_iter();
            calls.extend(below.map(|dir| Call { dir, given: given.clone() }));
            findings.extend(about(source, index, &makefile, &given));
        }
    }
    findings
}

fn about(source: &Source, index: usize, makefile: &Makefile, given: &[String]) -> Option<Finding> {
    let place = |line| Place { file: makefile.path.clone(), line: Some(line) };
    let sets_release = given.iter().any(|name| name == "KERNELRELEASE");
    if let Some(line) = makefile.has_no_target_with_kernelrelease().filter(|_| sets_release) {
        let problem =
            "nothing to make: dkms sets KERNELRELEASE, for which this Makefile defines no targets"
                .to_owned();
        let remedy = "remove MAKE, or start it with make -C $kernel_source_dir";
        return Some(Finding::new(Severity::Error, place(line), problem, remedy));
    }
    let what = if source.values.elements("MAKE").count() > 1 {
        format!("MAKE[{index}]")
    } else {
        "MAKE".to_owned()
    };
    match makefile.kernel_dir(given)? {
        Origin::Uname(line) => {
            let problem =
                format!("uname names the running kernel, and {what} does not override it");
            let remedy = "pass the target in MAKE: $kernelver or $kernel_source_dir";
            Some(Finding::new(Severity::Warning, place(line), problem, remedy))
        }
        Origin::Fixed(line, path) => {
            let problem = format!("{path} is one kernel only, and {what} does not override it");
            let remedy = "pass $kernel_source_dir in MAKE";
            Some(Finding::new(Severity::Error, place(line), problem, remedy))
        }
    }
}

/// Returns those calls of make in the command `text` that run in the source. Omits calls with `-C`
/// and the directory of a kernel. `in_dkms_tree` contains the paths of the source in the dkms tree.
fn calls(text: &str, in_dkms_tree: &[PathBuf]) -> Vec<Call> {
    let inside = |dir: &Path, word: &str| {
        let path = dir.join(word);
        let known = in_dkms_tree.iter().find_map(|tree| path.strip_prefix(tree).ok());
        known.or(path.is_relative().then_some(path.as_path())).and_then(paths::within)
    };
    let mut calls = Vec::new();
    // The current directory, relative to the source directory; `None` if it is outside the source.
    let mut dir = Some(PathBuf::new());
    for (number, command) in text.split(['\n', ';', '&', '|']).enumerate() {
        let mut words = words(command).peekable();
        let mut given: Vec<String> = Vec::new();
        while let Some((name, _)) = words.peek().and_then(|word| word.split_once('=')) {
            given.push(name.to_owned());
            words.next();
        }
        match words.next().as_deref() {
            Some("cd") => {
                let to = words.next().unwrap_or_default();
                dir = dir.and_then(|dir| inside(&dir, &to));
                continue;
            }
            Some("make" | "/usr/bin/make") => {}
            _ => continue,
        }
        // dkms adds KERNELRELEASE only if the whole command begins with "make".
        if number == 0 && text.starts_with("make") {
            given.push("KERNELRELEASE".to_owned());
        }
        let mut run_in = dir.clone();
        while let Some(word) = words.next() {
            let option = ["--directory=", "-C"].iter().find_map(|it| word.strip_prefix(it));
            match option {
                Some("") => {
                    let to = words.next().unwrap_or_default();
                    run_in = run_in.and_then(|dir| inside(&dir, &to));
                }
                Some(to) => run_in = run_in.and_then(|dir| inside(&dir, to)),
                None => given.extend(word.split_once('=').map(|(name, _)| name.to_owned())),
            }
        }
        calls.extend(run_in.map(|dir| Call { dir, given }));
    }
    calls
}

/// Returns the words of a command without quotes.
fn words(command: &str) -> impl Iterator<Item = String> {
    command.split_whitespace().map(|word| word.replace(['"', '\''], ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain("make", &[("", "KERNELRELEASE")])]
    #[case::variables("make KVER=7.2 'A=b' all", &[("", "KERNELRELEASE KVER A")])]
    #[case::quoted("'make' all", &[("", "")])]
    #[case::subdirectory("make -C src X=1", &[("src", "KERNELRELEASE X")])]
    #[case::in_the_dkms_tree("make -C /t/a/1/build/x", &[("x", "KERNELRELEASE")])]
    #[case::kernel("make -C /lib/modules/7.2/build M=/t/a/1/build", &[])]
    #[case::cd("cd src && V=1 make --directory=x && cd / && make", &[("src/x", "V")])]
    #[case::two("make a; make b", &[("", "KERNELRELEASE"), ("", "")])]
    #[case::script("./build.sh -C x", &[])]
    fn finds_the_calls_of_make(#[case] text: &str, #[case] want: &[(&str, &str)]) {
        let found = calls(text, &["/t/a/1/build".into()]);
        let found: Vec<_> = found
            .iter()
            .map(|call| (call.dir.display().to_string(), call.given.join(" ")))
            .collect();
        let want: Vec<_> =
            want.iter().map(|(dir, given)| ((*dir).to_owned(), (*given).to_owned())).collect();
        assert_eq!(found, want);
    }
}
