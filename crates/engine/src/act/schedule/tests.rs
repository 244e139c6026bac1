//! Small schedules.

use rstest::rstest;

use super::*;

fn task(seconds: u64, after: &[usize]) -> BuildTask {
    BuildTask { length: Duration::from_secs(seconds), after: after.to_vec(), one_of: None }
}

/// The order in which tasks begin if each is over before the next begins.
fn one_by_one(tasks: Vec<BuildTask>) -> Vec<usize> {
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
fn begins(#[case] tasks: Vec<BuildTask>, #[case] order: &[usize]) {
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
    let one_of = |seconds| BuildTask { one_of: Some(7), ..task(seconds, &[]) };
    let mut schedule = Schedule::new(vec![one_of(3), one_of(2), task(1, &[])]);
    assert_eq!([schedule.begin(), schedule.begin(), schedule.begin()], [Some(0), Some(2), None]);
    schedule.end(0);
    assert_eq!(schedule.begin(), Some(1));
}

/// What would happen with `tokens` processors: jobs of a token each, as makes without parallel
/// rules are, in the order that a schedule gives. Answers when the last is over.
fn simulate(tasks: &[BuildTask], tokens: usize) -> Duration {
    let mut schedule = Schedule::new(tasks.to_vec());
    let mut running: Vec<(Duration, usize)> = Vec::new();
    let mut now = Duration::ZERO;
    loop {
        while running.len() < tokens
            && let Some(number) = schedule.begin()
        {
            running.push((now + tasks[number].length, number));
        }
        let Some(next) = running.iter().copied().min() else { return now };
        running.retain(|other| *other != next);
        now = next.0;
        schedule.end(next.1);
    }
}

/// 40 modules for 6 kernels, their lengths from a fixed sequence between 2 and 60 s; of every four,
/// the second builds upon the first, the third upon the second. A kernel of a slower compiler takes
/// half as long again.
fn forty_modules_for_six_kernels(seed: u64) -> Vec<BuildTask> {
    let mut state = seed;
    let mut next = || {
        // Knuth's MMIX generator; its upper bits are good enough to shuffle with.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % 1000
    };
    // Most modules are small and a few are large.
    let lengths: Vec<u64> = (0..40).map(|_| 2_000 + 58 * next() * next() / 1000).collect();
    let mut tasks = Vec::new();
    for kernel in 0..6 {
        for (module, length) in lengths.iter().enumerate() {
            let length = Duration::from_millis(if kernel == 5 { length * 3 / 2 } else { *length });
            let waits = module % 4 == 1 || module % 4 == 2;
            let after = if waits { vec![kernel * 40 + module - 1] } else { Vec::new() };
            tasks.push(BuildTask { length, after, one_of: None });
        }
    }
    tasks
}

/// No schedule is shorter than the work of all processors, or than the longest chain.
#[rstest]
fn forty_modules_for_six_kernels_take_little_longer_than_they_must(
    #[values(2, 16, 64)] tokens: u32,
    #[values(1, 2, 3, 4, 5)] seed: u64,
) {
    let tasks = forty_modules_for_six_kernels(seed);
    let work: Duration = tasks.iter().map(|task| task.length).sum();
    let chain = ways(&tasks).into_iter().max().unwrap_or_default();
    let least = chain.max(work / tokens);
    let took = simulate(&tasks, tokens as usize);
    assert!(took * 10 <= least * 11, "{took:?} where {least:?} is the least");
}

/// Where builds have no place of their own, a module for six kernels is a chain of six.
#[test]
fn builds_that_follow_each_other_do_so_without_pauses() {
    let mut tasks = forty_modules_for_six_kernels(1);
    for (number, task) in tasks.iter_mut().enumerate() {
        task.one_of = Some(number % 40);
    }
    let work: Duration = tasks.iter().map(|task| task.length).sum();
    let took = simulate(&tasks, 4);
    assert!(took * 10 <= (work / 4) * 11, "{took:?} for {work:?} of work");
}
