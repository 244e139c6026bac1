//! The table of all packages, `docs/corpus.md`, and what is not as it should be in it.

use std::collections::BTreeMap;

use similar::TextDiff;

use crate::comparison::{Comparison, PackageResult};
use crate::lifecycle::{Lifecycle, Observed};
use crate::source_package::SourcePackage;

const INTRODUCTION: &str = "\
# Debian's packages, with dkms and with ours

Written by `make check-corpus`. Every `*-dkms` package of Debian's goes through the real dkms and through ours, on equal
machines: what it brings is unpacked, and its module is added, built and installed for a kernel with its real headers, looked
at with `dkms status`, and removed; the exit codes stand in this order. PackageResult are these, what `status` says, the objects
that are placed (their paths, and the version, vermagic and depends that modinfo reads in them), and what is left in the trees
at the end.

Some sources do not compile with so new a kernel (exit 10); both programs have to say so. A package that differs on purpose names
its row of [the table of differences](compatibility.md).
";

const HEAD: &str = "| Package | Version | Module | dkms | ours | Objects, or why none | |";

/// How much is shown of a compiler's complaint, in characters.
const LONGEST: usize = 90;

const RULE: &str = "|---|---|---|---|---|---|---|";

/// What was found so far.
#[derive(Debug)]
pub struct Page {
    all: Vec<SourcePackage>,
    found: Vec<(SourcePackage, PackageResult)>,
}

impl Page {
    /// A page without rows, about all these packages.
    pub fn new(all: Vec<SourcePackage>) -> Self {
        Self { all, found: Vec::new() }
    }

    /// One more package.
    pub fn add(&mut self, source: SourcePackage, result: PackageResult) {
        self.found.push((source, result));
    }

    /// The page as a whole; the rows of a page `before` stay for packages that have none now.
    pub fn text(&self, comparison: &Comparison, before: &str) -> String {
        let head = format!(
            "{}, on {} cores of {}. {}, {}; kernel {}.",
            comparison.says("date --utc +%F"),
            comparison.says("nproc"),
            comparison.says("sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n1"),
            comparison.says("/opt/peer/usr/sbin/dkms --version"),
            comparison.says("gcc --version | head -n1"),
            comparison.kernel(),
        );
        let before =
            before.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Package"));
        let mut rows: BTreeMap<String, String> =
            before.map(|line| (package_of(line), line.to_owned())).collect();
        rows.extend(self.found.iter().map(|(source, result)| {
            let row = row(source, result);
            (package_of(&row), row)
        }));
        let is_new = |source: &&SourcePackage| !rows.contains_key(&source.package);
        let missing: Vec<&str> =
            self.all.iter().filter(is_new).map(|source| source.package.as_str()).collect();
        let missing = match missing[..] {
            [] => String::new(),
            _ => format!(" Not gone through yet: {}.", missing.join(", ")),
        };
        let rows: Vec<String> = rows.into_values().collect();
        let equal = rows.iter().filter(|row| row.ends_with("| equal |")).count();
        let count = rows.len();
        let rows = rows.join("\n");
        format!(
            "{INTRODUCTION}\n{head}\n\n{equal} of {count} packages are equal.{missing}\n\n{HEAD}\n{RULE}\n{rows}\n"
        )
    }

    /// The packages that differ, though nothing says so, and those that do not, though something does.
    pub fn findings(&self) -> Vec<String> {
        self.found.iter().filter_map(|(source, result)| finding(source, result)).collect()
    }
}

/// The package that a row is about.
fn package_of(row: &str) -> String {
    row.trim_start_matches("| ").split(" |").next().unwrap_or(row).to_owned()
}

fn row(source: &SourcePackage, result: &PackageResult) -> String {
    let codes = |seen: &Observed| seen.codes.map(|code| code.to_string()).join(" ");
    let verdict = match (is_equal(result), source.differs) {
        (true, _) => "equal".to_owned(),
        (false, Some(row)) => format!("differs: `{row}`"),
        (false, None) => "**differs**".to_owned(),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {verdict} |",
        source.package,
        source.version,
        source.module,
        codes(&result.dkms.seen),
        codes(&result.ours.seen),
        objects_or_complaint(&result.ours),
    )
}

/// The names of the placed objects, or how many they are, or why there are none.
fn objects_or_complaint(lifecycle: &Lifecycle) -> String {
    let names = lifecycle.seen.objects.iter().filter_map(|object| object.path.rsplit('/').next());
    let names: Vec<&str> = names.filter_map(|name| name.split(".ko").next()).collect();
    match (names.len(), &lifecycle.complaint) {
        (0, Some(complaint)) => {
            let start: String = complaint.chars().take(LONGEST).collect();
            format!("`{}`", start.replace('|', "\\|").replace('`', "'"))
        }
        (0..=3, _) => names.join(", "),
        (many, _) => format!("{many}: {}, …", names[..2].join(", ")),
    }
}

fn is_equal(result: &PackageResult) -> bool {
    result.dkms.seen == result.ours.seen
}

fn finding(source: &SourcePackage, result: &PackageResult) -> Option<String> {
    let SourcePackage { package, differs, .. } = source;
    match (is_equal(result), differs) {
        (true, None) | (false, Some(_)) => None,
        (true, Some(row)) => {
            Some(format!("{package} does not differ, though it says so by `{row}`"))
        }
        (false, None) => {
            let [dkms, ours] =
                [&result.dkms, &result.ours].map(|lifecycle| format!("{:#?}\n", lifecycle.seen));
            let diff = TextDiff::from_lines(&dkms, &ours);
            Some(format!(
                "{package} differs from dkms:\n{}\nwhat dkms said:\n{}\nwhat ours said:\n{}",
                diff.unified_diff().header("dkms", "ours"),
                result.dkms.said,
                result.ours.said
            ))
        }
    }
}
