//! The table of all packages, `docs/corpus.md`, and what is not as it should be in it.

use std::collections::BTreeMap;

use similar::TextDiff;

use crate::course::{Course, Seen};
use crate::sides::{Pair, Sides};
use crate::source::Source;

const INTRODUCTION: &str = "\
# Debian's packages, with dkms and with ours

Written by `make check-corpus`. Every `*-dkms` package of Debian's goes through the real dkms and through ours, on equal
machines: what it brings is unpacked, and its module is added, built and installed for a kernel with its real headers, looked
at with `dkms status`, and removed; the exit codes stand in this order. Compared are these, what `status` says, the objects
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
    all: Vec<Source>,
    found: Vec<(Source, Pair)>,
}

impl Page {
    /// A page without rows, about all these packages.
    pub fn new(all: Vec<Source>) -> Self {
        Self { all, found: Vec::new() }
    }

    /// One more package.
    pub fn add(&mut self, source: Source, pair: Pair) {
        self.found.push((source, pair));
    }

    /// The page as a whole; the rows of a page `before` stay for packages that have none now.
    pub fn text(&self, sides: &Sides, before: &str) -> String {
        let head = format!(
            "{}, on {} cores of {}. {}, {}; kernel {}.",
            sides.says("date --utc +%F"),
            sides.says("nproc"),
            sides.says("sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n1"),
            sides.says("/opt/peer/usr/sbin/dkms --version"),
            sides.says("gcc --version | head -n1"),
            sides.kernel(),
        );
        let before =
            before.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Package"));
        let mut rows: BTreeMap<String, String> =
            before.map(|line| (package_of(line), line.to_owned())).collect();
        rows.extend(self.found.iter().map(|(source, pair)| {
            let row = row(source, pair);
            (package_of(&row), row)
        }));
        let is_new = |source: &&Source| !rows.contains_key(&source.package);
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
        self.found.iter().filter_map(|(source, pair)| finding(source, pair)).collect()
    }
}

/// The package that a row is about.
fn package_of(row: &str) -> String {
    row.trim_start_matches("| ").split(" |").next().unwrap_or(row).to_owned()
}

fn row(source: &Source, pair: &Pair) -> String {
    let codes = |seen: &Seen| seen.codes.map(|code| code.to_string()).join(" ");
    let verdict = match (is_equal(pair), source.differs) {
        (true, _) => "equal".to_owned(),
        (false, Some(row)) => format!("differs: `{row}`"),
        (false, None) => "**differs**".to_owned(),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {verdict} |",
        source.package,
        source.version,
        source.module,
        codes(&pair.dkms.seen),
        codes(&pair.ours.seen),
        result(&pair.ours),
    )
}

/// The names of the placed objects, or how many they are, or why there are none.
fn result(course: &Course) -> String {
    let names = course.seen.objects.iter().filter_map(|object| object.path.rsplit('/').next());
    let names: Vec<&str> = names.filter_map(|name| name.split(".ko").next()).collect();
    match (names.len(), &course.complaint) {
        (0, Some(complaint)) => {
            let start: String = complaint.chars().take(LONGEST).collect();
            format!("`{}`", start.replace('|', "\\|").replace('`', "'"))
        }
        (0..=3, _) => names.join(", "),
        (many, _) => format!("{many}: {}, …", names[..2].join(", ")),
    }
}

fn is_equal(pair: &Pair) -> bool {
    pair.dkms.seen == pair.ours.seen
}

fn finding(source: &Source, pair: &Pair) -> Option<String> {
    let Source { package, differs, .. } = source;
    match (is_equal(pair), differs) {
        (true, None) | (false, Some(_)) => None,
        (true, Some(row)) => {
            Some(format!("{package} does not differ, though it says so by `{row}`"))
        }
        (false, None) => {
            let [dkms, ours] =
                [&pair.dkms, &pair.ours].map(|course| format!("{:#?}\n", course.seen));
            let diff = TextDiff::from_lines(&dkms, &ours);
            Some(format!(
                "{package} differs from dkms:\n{}\nwhat dkms said:\n{}\nwhat ours said:\n{}",
                diff.unified_diff().header("dkms", "ours"),
                pair.dkms.said,
                pair.ours.said
            ))
        }
    }
}
