//! Tests of the decisions about builds that ran side by side.

use super::*;
use crate::dkms_tree::Record;
use crate::os::digest::Digest;

const SECOND: Duration = Duration::from_secs(1);

/// Returns the state for builds of one module for `count` kernels.
fn kernels(count: usize) -> SideBySide {
    SideBySide::new(vec![0; count], BTreeSet::new())
}

fn built() -> Tried {
    Tried { inputs: Some(Digest::of_bytes(b"")), ..restored() }
}

fn restored() -> Tried {
    Tried::settled(Ok(Box::new(Record::sample("foo/1.0", "7.2", "source"))))
}

fn failed(message: &str) -> Tried {
    Tried::failed(Failure::new(10, message))
}

fn changed(tried: Tried) -> Tried {
    Tried { source_changed: true, ..tried }
}

/// Starts builds side by side.
fn start(side_by_side: &mut SideBySide, numbers: &[usize]) {
    for number in numbers {
        side_by_side.starts(*number, false);
    }
}

/// Ends a build, and returns the decisions as text: the number of the job, and `built`, `failed` or
/// `again`.
fn end(side_by_side: &mut SideBySide, number: usize, tried: Tried) -> String {
    let text = |verdict: Verdict| match verdict {
        Verdict::Accept(number, Tried { result: Ok(_), .. }, _) => format!("{number} built"),
        Verdict::Accept(number, ..) => format!("{number} failed"),
        Verdict::Repeat(number) => format!("{number} again"),
    };
    let verdicts = side_by_side.ends(number, tried, SECOND);
    verdicts.into_iter().map(text).collect::<Vec<_>>().join(", ")
}

#[test]
fn build_is_accepted_when_the_builds_beside_it_have_ended() {
    let mut all = kernels(3);
    start(&mut all, &[0, 1]);
    assert_eq!(end(&mut all, 0, built()), "");
    start(&mut all, &[2]);
    // 2 ran beside 1, but not beside 0.
    assert_eq!(end(&mut all, 1, built()), "0 built");
    assert_eq!(end(&mut all, 2, built()), "1 built, 2 built");
    assert_eq!(all.group(0), None);
}

#[test]
fn build_from_the_cache_is_accepted_at_once() {
    let mut all = kernels(2);
    start(&mut all, &[0, 1]);
    assert_eq!(end(&mut all, 0, restored()), "0 built");
    assert_eq!(end(&mut all, 1, changed(built())), "1 again");
}

#[test]
fn builds_of_different_modules_do_not_wait_for_each_other() {
    let mut all = SideBySide::new(vec![0, 1], BTreeSet::new());
    start(&mut all, &[0, 1]);
    assert_eq!(end(&mut all, 0, failed("no")), "0 failed");
    assert_eq!(end(&mut all, 1, changed(built())), "1 built");
    assert_eq!((all.group(0), all.group(1)), (None, Some(1)));
}

#[test]
fn changed_source_repeats_the_build_and_those_beside_it() {
    let mut all = kernels(4);
    start(&mut all, &[0]);
    assert_eq!(end(&mut all, 0, built()), "0 built");
    start(&mut all, &[1, 2, 3]);
    assert_eq!(end(&mut all, 1, built()), "");
    assert_eq!(end(&mut all, 2, changed(failed("no"))), "");
    assert_eq!(end(&mut all, 3, built()), "1 again, 2 again, 3 again");
    assert_eq!(all.group(1), Some(0));
    for number in 1..4 {
        assert_eq!(all.starts(number, false), Attempt::Alone);
        assert_eq!(end(&mut all, number, changed(built())), format!("{number} built"));
    }
}

#[test]
fn failure_beside_another_build_is_retried_once() {
    let mut all = kernels(2);
    start(&mut all, &[0, 1]);
    assert_eq!(end(&mut all, 0, built()), "");
    assert_eq!(end(&mut all, 1, failed("/tmp/w")), "0 built, 1 again");
    assert_eq!(all.group(1), Some(0));
    start(&mut all, &[1]);
    assert_eq!(end(&mut all, 1, failed("another reason")), "1 failed");
}

#[test]
fn failure_without_a_build_beside_it_is_not_retried() {
    let mut all = kernels(2);
    assert_eq!(all.starts(0, false), Attempt::Beside);
    assert_eq!(end(&mut all, 0, failed("no")), "0 failed");
    assert_eq!(all.starts(1, false), Attempt::Only);
    assert_eq!(end(&mut all, 1, failed("no")), "1 failed");
}

#[test]
fn same_failure_of_a_retry_ends_the_retries_of_its_module() {
    let mut all = kernels(4);
    start(&mut all, &[0, 1, 2]);
    assert_eq!(end(&mut all, 0, failed("0 no")), "");
    assert_eq!(end(&mut all, 2, failed("2 no")), "");
    assert_eq!(end(&mut all, 1, built()), "0 again, 1 built");
    start(&mut all, &[0]);
    assert_eq!(end(&mut all, 0, failed("0 no")), "0 failed, 2 failed");
    // The module's other builds run side by side again, and their failures count at once.
    assert_eq!(all.group(3), None);
}

#[test]
fn other_failures_are_retried_in_turn_until_one_recurs() {
    let mut all = kernels(3);
    start(&mut all, &[0, 1, 2]);
    assert_eq!(end(&mut all, 0, failed("0 no")), "");
    assert_eq!(end(&mut all, 1, failed("1 no")), "");
    assert_eq!(end(&mut all, 2, failed("2 no")), "0 again");
    start(&mut all, &[0]);
    assert_eq!(end(&mut all, 0, built()), "0 built, 1 again");
    start(&mut all, &[1]);
    assert_eq!(end(&mut all, 1, failed("1 no")), "1 failed, 2 failed");
}

#[test]
fn build_that_ran_out_of_memory_is_left_to_its_own_retry() {
    let mut all = kernels(2);
    start(&mut all, &[0, 1]);
    let memory = Failure { out_of_memory: true, ..Failure::transient(10, "out of memory") };
    assert_eq!(end(&mut all, 0, Tried::failed(memory)), "");
    assert_eq!(end(&mut all, 1, changed(built())), "0 failed, 1 again");
    assert_eq!(all.starts(0, true), Attempt::Only);
    assert_eq!(end(&mut all, 0, built()), "0 built");
}
