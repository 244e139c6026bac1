//! Whether scripts and packages can tell our dkms from the real one: both play the same scenarios, and every difference
//! has to be an intended one.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod compare;
mod compatibility_table;
mod coverage;
mod play;
mod scenario;

use std::collections::BTreeSet;

use compare::Findings;
use scenario::Scenario;

#[test]
fn only_what_the_table_names_differs_from_dkms() {
    let scenarios = Scenario::all();
    let play = play::play(&scenarios);
    let findings = Findings::of(&scenarios, &play);
    assert!(findings.is_empty(), "{findings}");
    if scenarios.len() == Scenario::every_one().len() {
        let never = coverage::never_seen(&play);
        assert!(never.is_empty(), "no scenario makes dkms show this: {never:?}");
    }
}

#[test]
fn all_that_the_man_pages_name_is_played() {
    let never = coverage::never_played(&Scenario::every_one());
    assert!(never.is_empty(), "no scenario has this: {never:?}");
}

#[test]
fn each_surprise_is_played() {
    let missing = coverage::missing_scenarios(&Scenario::every_one());
    assert!(
        missing.is_empty(),
        "the README of the scenarios names some that are not there: {missing:?}"
    );
}

#[test]
fn each_row_of_the_table_is_shown_by_a_scenario() {
    let rows = compatibility_table::rows();
    let scenarios = Scenario::every_one();
    let shown: BTreeSet<&str> =
        scenarios.iter().flat_map(|it| it.differs.iter().map(String::as_str)).collect();
    let rows: BTreeSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    let unshown: Vec<_> = rows.difference(&shown).collect();
    assert!(unshown.is_empty(), "no scenario shows that these rows are true: {unshown:?}");
    let unnamed: Vec<_> = shown.difference(&rows).collect();
    assert!(unnamed.is_empty(), "scenarios differ by what no row names: {unnamed:?}");
}
