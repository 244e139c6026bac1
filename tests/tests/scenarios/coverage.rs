//! Checks that the scenarios cover dkms: its man page, its exit codes and its status lines.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex::Regex;

use crate::play::Play;
use crate::scenario::{Scenario, directory};

/// What a line of `dkms status` may end with. (The real one has a fifth state, "installed-weak", which a mistake in it keeps
/// from ever being shown: status/weak.)
const STATUS: [&str; 7] = [
    ": added",
    ": broken",
    ": built",
    ": installed",
    " (Original modules exist)",
    " (Built modules are missing in the kernel modules folder)",
    " (Differences between built and installed modules)",
];

/// Commands, options and exit statuses that dkms has not.
const OURS: [&str; 10] = [
    "cache",
    "initramfs",
    "--root",
    "--dry-run",
    "--json",
    "--pending",
    "--timings",
    "129",
    "130",
    "143",
];

/// dkms's shows what its shell does.
const NOT_PLAYED: [&str; 1] = ["--debug"];

/// Exit codes and ends of status lines of the real dkms that no scenario brought about.
pub fn never_seen(play: &Play) -> Vec<String> {
    let peer =
        || play.iter().filter(|((_, manner), _)| *manner == "peer").map(|(_, seen)| &seen.seen);
    let codes = section(&page("dkms.8"), "EXIT STATUS");
    let codes = items(&codes, r"(?m)^\.It (.*)$").into_iter().map(|code| format!("  exit {code}"));
    let seen = |what: &str| peer().any(|seen| seen.lines().any(|line| line.ends_with(what)));
    STATUS.map(str::to_owned).into_iter().chain(codes).filter(|what| !seen(what)).collect()
}

/// Commands, options and directives of the man pages that are in no scenario.
pub fn never_played(scenarios: &[Scenario]) -> Vec<String> {
    let page = page("dkms.8");
    let commands = items(&section(&page, "COMMANDS"), r"(?m)^\.It Cm (.*)$");
    let options = items(&section(&page, "OPTIONS"), r"(?m)^\.It (Fl .*)$");
    let directives = items(&self::page("dkms.conf.5"), r"(?m)^\.It Ic (.*)$");
    let all: String =
        scenarios.iter().map(|it| fs::read_to_string(&it.file).expect("read a scenario")).collect();
    let words: BTreeSet<&str> =
        all.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_').collect();
    let names = commands.into_iter().chain(options).chain(directives);
    names
        .filter(|name| !words.contains(name.as_str()) && !NOT_PLAYED.contains(&name.as_str()))
        .collect()
}

/// Scenarios that the README's table of surprises names, and that are not there.
pub fn missing_scenarios(scenarios: &[Scenario]) -> Vec<String> {
    let readme = fs::read_to_string(directory().join("README.md")).expect("read the README");
    let (_, table) = readme.split_once("## Surprises").expect("a table of surprises");
    let named = Regex::new(r"`([a-z-]+/[a-z-]+)`").expect("a pattern");
    let named: Vec<_> = named.captures_iter(table).map(|it| it[1].to_owned()).collect();
    assert!(!named.is_empty(), "the table of surprises names no scenario");
    named.into_iter().filter(|name| scenarios.iter().all(|it| it.name != *name)).collect()
}

/// The source of a man page.
fn page(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../man").join(name);
    fs::read_to_string(file).expect("read a man page")
}

/// One section of a page.
fn section(page: &str, name: &str) -> String {
    let (_, rest) = page.split_once(&format!(".Sh {name}\n")).expect("a section");
    rest.split("\n.Sh ").next().unwrap_or(rest).to_owned()
}

/// The names of a list's items, as one types them, but for ours.
fn items(text: &str, item: &str) -> Vec<String> {
    let item = Regex::new(item).expect("a pattern");
    let mut names = Vec::new();
    for line in item.captures_iter(text) {
        let line = &line[1];
        // `Fl k , Fl -kernelver Ar release`: what follows Ar and Ns, Op and Bq is no name.
        for part in line.split(" , ") {
            let mut words = part.split_ascii_whitespace();
            let name = match words.next() {
                Some("Fl") => words.next().map(|option| format!("-{option}")),
                first => first.map(str::to_owned),
            };
            names.extend(name.filter(|name| !OURS.contains(&name.as_str())));
        }
    }
    names
}
