//! Whether scripts and packages can tell our dkms from the real one: both play the same scenarios, and every difference
//! has to be an intended one.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod compare;
mod scenario;
mod stage;
mod table;

use std::collections::BTreeSet;

use compare::Findings;
use scenario::Scenario;

#[test]
fn only_what_the_table_names_differs_from_dkms() {
    let scenarios = Scenario::all();
    let findings = Findings::of(&scenarios, &stage::play(&scenarios));
    assert!(findings.is_empty(), "{findings}");
}

#[test]
fn each_row_of_the_table_is_shown_by_a_scenario() {
    let rows = table::rows();
    let scenarios = Scenario::every_one();
    let shown: BTreeSet<&str> =
        scenarios.iter().flat_map(|it| it.differs.iter().map(String::as_str)).collect();
    let rows: BTreeSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    let unshown: Vec<_> = rows.difference(&shown).collect();
    assert!(unshown.is_empty(), "no scenario shows that these rows are true: {unshown:?}");
    let unnamed: Vec<_> = shown.difference(&rows).collect();
    assert!(unnamed.is_empty(), "scenarios differ by what no row names: {unnamed:?}");
}
