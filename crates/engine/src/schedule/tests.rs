//! Small schedules.

use rstest::rstest;

use super::*;

fn task(seconds: u64, after: &[usize]) -> Task {
    Task { length: Duration::from_secs(seconds), after: after.to_vec(), one_of: None }
}

/// The order in which tasks begin if each is over before the next begins.
fn one_by_one(tasks: Vec<Task>) -> Vec<usize> {
    let mut schedule = Schedule::new(tasks);
    let mut order = Vec::new();
    while let Some(next) = schedule.begin() {
        order.push(next);
        schedule.end(next);
    }
    order
}

#[rstest]
#[case::longest_first(vec![task(1, &[]), task(3, &[]), task(2, &[])], &[1, 2, 0])]
#[case::equals_as_they_come(vec![task(1, &[]), task(1, &[])], &[0, 1])]
#[case::the_longest_way_first(vec![task(5, &[]), task(1, &[]), task(9, &[1])], &[1, 2, 0])]
#[case::through_several(vec![task(2, &[1]), task(2, &[2]), task(2, &[]), task(5, &[])], &[2, 3, 1, 0])]
#[case::what_waits_for_itself_never_begins(vec![task(2, &[0]), task(1, &[])], &[1])]
fn begins(#[case] tasks: Vec<Task>, #[case] order: &[usize]) {
    assert_eq!(one_by_one(tasks), order);
}

#[test]
fn nothing_begins_before_what_it_waits_for_is_over() {
    let mut schedule = Schedule::new(vec![task(1, &[]), task(9, &[0])]);
    assert_eq!((schedule.begin(), schedule.begin(), schedule.has_ready()), (Some(0), None, false));
    schedule.end(0);
    assert_eq!((schedule.has_ready(), schedule.begin()), (true, Some(1)));
}

#[test]
fn of_some_only_one_runs_at_a_time() {
    let one_of = |seconds| Task { one_of: Some(7), ..task(seconds, &[]) };
    let mut schedule = Schedule::new(vec![one_of(3), one_of(2), task(1, &[])]);
    assert_eq!([schedule.begin(), schedule.begin(), schedule.begin()], [Some(0), Some(2), None]);
    schedule.end(0);
    assert_eq!(schedule.begin(), Some(1));
}
