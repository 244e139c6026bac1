//! Compares alpm-dkms with the real dkms: both run the same scenarios, and every difference must be
//! documented.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod compare;
mod compatibility_table;
mod coverage;
mod scenario;
mod transcripts;

use std::collections::BTreeSet;

use compare::Findings;
use scenario::Scenario;

#[test]
fn all_differences_from_dkms_are_documented() {
    let scenarios = Scenario::selected();
    let transcripts = transcripts::run(&scenarios);
    let findings = Findings::of(&scenarios, &transcripts);
    assert!(findings.is_empty(), "{findings}");
    if scenarios.len() == Scenario::all().len() {
        let missing = coverage::never_shown(&transcripts);
        assert!(missing.is_empty(), "never shown by dkms in a scenario: {missing:?}");
    }
}

#[test]
fn scenarios_cover_the_man_pages() {
    let missing = coverage::never_used(&Scenario::all());
    assert!(missing.is_empty(), "used in no scenario: {missing:?}");
}

#[test]
fn scenarios_named_in_the_readme_exist() {
    let missing = coverage::missing_scenarios(&Scenario::all());
    assert!(missing.is_empty(), "scenarios in README.md that do not exist: {missing:?}");
}

#[test]
fn scenarios_show_all_documented_differences() {
    let rows = compatibility_table::rows();
    let scenarios = Scenario::all();
    let shown: BTreeSet<&str> =
        scenarios.iter().flat_map(|it| it.differs.iter().map(String::as_str)).collect();
    let rows: BTreeSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    let without_scenario: Vec<_> = rows.difference(&shown).collect();
    assert!(without_scenario.is_empty(), "keys without a scenario: {without_scenario:?}");
    let undocumented: Vec<_> = shown.difference(&rows).collect();
    assert!(undocumented.is_empty(), "undocumented keys: {undocumented:?}");
}
