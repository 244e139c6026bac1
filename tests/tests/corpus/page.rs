//! Writes the table of all packages, `docs/corpus.md`, and reports unexpected results.

use std::collections::BTreeMap;

use similar::TextDiff;
use stories::find;

use crate::comparison::{Comparison, KERNELS, PackageResult};
use crate::lifecycle::{Lifecycle, Observed};
use crate::source_package::SourcePackage;

const INTRODUCTION: &str = "\
# Debian's packages with dkms and with alpm-dkms

Written by `make check-corpus`. Every `*-dkms` package of Debian is unpacked on two equal machines, one with the real dkms
and one with alpm-dkms. Its module is added, built and installed for a kernel with its real headers, listed with
`dkms status`, and removed. The columns `dkms` and `alpm-dkms` show the exit codes of these five commands. Also compared are
the lines of `status`, the installed objects (their paths, and their version, vermagic and depends by modinfo), and the files
that remain in the trees at the end.

The column `Contents` compares the objects byte for byte, uncompressed and without signatures. If some differ, it names the
ELF sections, and the real dkms builds the module once more. If its two builds differ in the same sections, for example
because the objects contain the time of the build, the package counts as equal. So does one whose objects differ only in the
build ID, which also depends on debug symbols that are not installed.

Some sources do not compile with such a recent kernel. Then both programs must exit with 10. A package with an intended
difference names its key in [compatibility.md](compatibility.md).
";

const HEAD: &str =
    "| Package | Version | Module | dkms | alpm-dkms | Objects, or the error | Contents | |";

/// The section with the hash of the object, including its debug symbols. It can differ if modules
/// share a compiled part, whose debug symbols name the directory of the first module.
const BUILD_ID: &str = ".note.gnu.build-id";

/// The number of characters that are shown of an error.
const LONGEST: usize = 90;

const RULE: &str = "|---|---|---|---|---|---|---|---|";

/// The results so far.
#[derive(Debug)]
pub struct Page {
    all: Vec<SourcePackage>,
    found: Vec<(&'static str, SourcePackage, PackageResult)>,
}

impl Page {
    /// Creates a page without rows for these packages.
    pub fn new(all: Vec<SourcePackage>) -> Self {
        Self { all, found: Vec::new() }
    }

    /// Adds the result of a package for one of the [`KERNELS`].
    pub fn add(&mut self, kernel: &'static str, source: &SourcePackage, result: PackageResult) {
        self.found.push((kernel, source.clone(), result));
    }

    /// Returns the page. Packages without a result keep their rows of the page `before`.
    pub fn text(&self, comparison: &Comparison, before: &str) -> String {
        let mut page = format!(
            "{INTRODUCTION}\n{}, on {} cores of {}. {}, {}.\n",
            comparison.output_of("date --utc +%F"),
            comparison.output_of("nproc"),
            comparison.output_of("sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n1"),
            comparison.output_of("/opt/peer/usr/sbin/dkms --version"),
            comparison.output_of("gcc --version | head -n1"),
        );
        for kernel in KERNELS {
            page.push_str(&self.table(kernel, before));
        }
        page
    }

    /// Returns the heading and the table of one of the [`KERNELS`].
    fn table(&self, kernel: &str, before: &str) -> String {
        let package = find(kernel);
        let heading = format!("## {}\n", package.name);
        let before = before.split_once(&heading).map_or("", |(_, rest)| rest);
        let before = before.split("\n## ").next().unwrap_or_default();
        let before =
            before.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Package"));
        let mut rows: BTreeMap<String, String> =
            before.map(|line| (package_of(line), line.to_owned())).collect();
        let found = self.found.iter().filter(|(of, ..)| *of == kernel);
        rows.extend(found.map(|(_, source, result)| {
            let row = row(kernel, source, result);
            (package_of(&row), row)
        }));
        let is_new = |source: &&SourcePackage| !rows.contains_key(&source.package);
        let missing: Vec<&str> =
            self.all.iter().filter(is_new).map(|source| source.package.as_str()).collect();
        let missing = match missing[..] {
            [] => String::new(),
            _ => format!(" Missing: {}.", missing.join(", ")),
        };
        let rows: Vec<String> = rows.into_values().collect();
        let equal = rows.iter().filter(|row| row.ends_with("| equal |")).count();
        let count = rows.len();
        let release = package.release();
        let rows = rows.join("\n");
        format!(
            "\n{heading}\nKernel {release}. {equal} of {count} packages are equal.{missing}\n\n\
             {HEAD}\n{RULE}\n{rows}\n"
        )
    }

    /// Returns the packages with an undocumented difference, or without the documented one.
    pub fn findings(&self) -> Vec<String> {
        let found = self.found.iter();
        found.filter_map(|(kernel, source, result)| finding(kernel, source, result)).collect()
    }
}

/// Returns the package name in a row.
fn package_of(row: &str) -> String {
    row.trim_start_matches("| ").split(" |").next().unwrap_or(row).to_owned()
}

fn row(kernel: &str, source: &SourcePackage, result: &PackageResult) -> String {
    let codes = |result: &Observed| result.codes.map(|code| code.to_string()).join(" ");
    let verdict = match (is_equal(result), source.difference(kernel)) {
        (true, _) => "equal".to_owned(),
        (false, Some(row)) => format!("differs: `{row}`"),
        (false, None) => "**differs**".to_owned(),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {verdict} |",
        source.package,
        source.version,
        source.module,
        codes(&result.dkms.observed),
        codes(&result.ours.observed),
        objects_or_error(&result.ours),
        contents(result),
    )
}

/// Returns the result of the comparison byte for byte, or an empty string without objects.
fn contents(result: &PackageResult) -> String {
    let count = result.ours.contents.len();
    if result.differing == 0 {
        return if count == 0 { "" } else { "equal" }.to_owned();
    }
    let sections: Vec<String> = result.sections.iter().map(|name| format!("`{name}`")).collect();
    let unstable = if result.unstable { ", as do two builds by dkms" } else { "" };
    format!("{} of {count} differ in {}{unstable}", result.differing, sections.join(", "))
}

/// Returns the names of the installed objects, or their number and two of them, or the error.
fn objects_or_error(lifecycle: &Lifecycle) -> String {
    let objects = lifecycle.observed.objects.iter();
    let names = objects.filter_map(|object| object.path.rsplit('/').next());
    let names: Vec<&str> = names.filter_map(|name| name.split(".ko").next()).collect();
    match (names.len(), &lifecycle.error) {
        (0, Some(error)) => {
            let start: String = error.chars().take(LONGEST).collect();
            format!("`{}`", start.replace('|', "\\|").replace('`', "'"))
        }
        (0..=3, _) => names.join(", "),
        (many, _) => format!("{many}: {}, …", names[..2].join(", ")),
    }
}

fn is_equal(result: &PackageResult) -> bool {
    let only_build_id = result.sections.iter().all(|name| name == BUILD_ID);
    result.dkms.observed == result.ours.observed && (only_build_id || result.unstable)
}

fn finding(kernel: &str, source: &SourcePackage, result: &PackageResult) -> Option<String> {
    let package = &source.package;
    match (is_equal(result), source.difference(kernel)) {
        (true, None) | (false, Some(_)) => None,
        (true, Some(row)) => Some(format!("{package}, {kernel}: no difference (expected: {row})")),
        (false, None) => {
            let [dkms, ours] =
                [&result.dkms, &result.ours].map(|result| format!("{:#?}\n", result.observed));
            let diff = TextDiff::from_lines(&dkms, &ours);
            Some(format!(
                "{package}, {kernel}: undocumented difference:\n{}\ncontents: {}\n\
                 output of dkms:\n{}\noutput of alpm-dkms:\n{}",
                diff.unified_diff().header("dkms", "ours"),
                contents(result),
                result.dkms.output,
                result.ours.output
            ))
        }
    }
}
