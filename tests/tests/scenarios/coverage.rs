//! Checks that the scenarios cover the man pages, exit codes and status lines of dkms.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex::Regex;

use crate::scenario::{Scenario, directory};
use crate::transcripts::Transcripts;

/// The endings of `dkms status` lines. A bug in dkms prevents a fifth state, "installed-weak", see
/// the scenario status/weak.
const STATUS: [&str; 7] = [
    ": added",
    ": broken",
    ": built",
    ": installed",
    " (Original modules exist)",
    " (Built modules are missing in the kernel modules folder)",
    " (Differences between built and installed modules)",
];

/// Commands, options and exit codes that only alpm-dkms has.
const OURS: [&str; 20] = [
    "cache",
    "explain",
    "initramfs",
    "lint",
    "preflight",
    "verify",
    "--allow-once",
    "--boot",
    "--idle",
    "--upgrade",
    "--no-download",
    "--root",
    "--dry-run",
    "--json",
    "--pending",
    "--strict",
    "--timings",
    "129",
    "130",
    "143",
];

/// Options without a scenario. `--debug` traces the shell of dkms.
const WITHOUT_SCENARIO: [&str; 1] = ["--debug"];

/// Returns the exit codes and endings of status lines that the real dkms shows in no scenario.
pub fn never_shown(transcripts: &Transcripts) -> Vec<String> {
    let peer = || {
        let of_peer = transcripts.iter().filter(|((_, mode), _)| *mode == "peer");
        of_peer.map(|(_, transcript)| &transcript.results)
    };
    let codes = section(&page("dkms.8"), "EXIT STATUS");
    let codes = items(&codes, r"(?m)^\.It (.*)$").into_iter().map(|code| format!("  exit {code}"));
    let shown = |end: &str| peer().any(|results| results.lines().any(|line| line.ends_with(end)));
    STATUS.map(str::to_owned).into_iter().chain(codes).filter(|end| !shown(end)).collect()
}

/// Returns the commands, options and directives of the man pages that are in no scenario.
pub fn never_used(scenarios: &[Scenario]) -> Vec<String> {
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
        .filter(|name| !words.contains(name.as_str()) && !WITHOUT_SCENARIO.contains(&name.as_str()))
        .collect()
}

/// Returns the scenarios that the README lists under "Surprises" but that do not exist.
pub fn missing_scenarios(scenarios: &[Scenario]) -> Vec<String> {
    let readme = fs::read_to_string(directory().join("README.md")).expect("read the README");
    let (_, table) = readme.split_once("## Surprises").expect("find the section Surprises");
    let named = Regex::new(r"`([a-z-]+/[a-z-]+)`").expect("compile a pattern");
    let named: Vec<_> = named.captures_iter(table).map(|it| it[1].to_owned()).collect();
    assert!(!named.is_empty(), "the section Surprises names no scenario");
    named.into_iter().filter(|name| scenarios.iter().all(|it| it.name != *name)).collect()
}

/// Returns the source of a man page.
fn page(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../man").join(name);
    fs::read_to_string(file).expect("read a man page")
}

/// Returns a section of a man page.
fn section(page: &str, name: &str) -> String {
    let (_, rest) = page.split_once(&format!(".Sh {name}\n")).expect("find a section");
    rest.split("\n.Sh ").next().unwrap_or(rest).to_owned()
}

/// Returns the names in the items of a list, as typed on the command line, without [`OURS`].
fn items(text: &str, item: &str) -> Vec<String> {
    let item = Regex::new(item).expect("compile a pattern");
    let mut names = Vec::new();
    for line in item.captures_iter(text) {
        let line = &line[1];
        // For example `Fl k , Fl -kernelver Ar release`. Only the first name of a part counts.
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
