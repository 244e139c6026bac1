//! Tests of the order in which builds start.

use rstest::rstest;

use super::*;

fn task(seconds: u64, after: &[usize]) -> BuildTask {
    BuildTask { duration: Duration::from_secs(seconds), after: after.to_vec(), group: None }
}

/// Returns the order in which the tasks start if each task ends before the next one starts.
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
#[case::equal_tasks_in_order(vec![task(1, &[]), task(1, &[])], &[0, 1])]
#[case::longest_path_first(vec![task(5, &[]), task(1, &[]), task(9, &[1])], &[1, 2, 0])]
#[case::path_of_several_tasks(vec![task(2, &[1]), task(2, &[2]), task(2, &[]), task(5, &[])], &[2, 3, 1, 0])]
#[case::self_dependency_never_starts(vec![task(2, &[0]), task(1, &[])], &[1])]
fn task_with_the_longest_path_starts_first(#[case] tasks: Vec<BuildTask>, #[case] order: &[usize]) {
    assert_eq!(one_by_one(tasks), order);
}

#[test]
fn tasks_wait_for_their_dependencies() {
    let mut schedule = Schedule::new(vec![task(1, &[]), task(9, &[0])]);
    assert_eq!((schedule.begin(), schedule.begin(), schedule.has_ready()), (Some(0), None, false));
    schedule.end(0);
    assert_eq!((schedule.has_ready(), schedule.begin()), (true, Some(1)));
}

#[test]
fn tasks_of_a_group_run_one_at_a_time() {
    let grouped = |seconds| BuildTask { group: Some(7), ..task(seconds, &[]) };
    let mut schedule = Schedule::new(vec![grouped(3), grouped(2), task(1, &[])]);
    assert_eq!([schedule.begin(), schedule.begin(), schedule.begin()], [Some(0), Some(2), None]);
    schedule.end(0);
    assert_eq!(schedule.begin(), Some(1));
}

#[test]
fn held_task_leaves_its_group_to_others_until_it_is_repeated() {
    let grouped = |seconds| BuildTask { group: Some(7), ..task(seconds, &[]) };
    let mut schedule = Schedule::new(vec![grouped(3), grouped(2), task(1, &[0])]);
    assert_eq!(schedule.begin(), Some(0));
    schedule.hold(0);
    assert_eq!((schedule.begin(), schedule.begin()), (Some(1), None));
    schedule.repeat(0);
    assert_eq!(schedule.begin(), None);
    schedule.set_group(0, None);
    assert_eq!(schedule.begin(), Some(0));
    schedule.hold(0);
    schedule.resume(0);
    schedule.end(0);
    assert_eq!(schedule.begin(), Some(2));
}

/// Returns the duration of a run with `tokens` jobserver tokens in which each build uses exactly
/// one token.
fn simulate(tasks: &[BuildTask], tokens: usize) -> Duration {
    let mut schedule = Schedule::new(tasks.to_vec());
    let mut running: Vec<(Duration, usize)> = Vec::new();
    let mut now = Duration::ZERO;
    loop {
        while running.len() < tokens
            && let Some(number) = schedule.begin()
        {
            running.push((now + tasks[number].duration, number));
        }
        let Some(next) = running.iter().copied().min() else { return now };
        running.retain(|other| *other != next);
        now = next.0;
        schedule.end(next.1);
    }
}

/// Returns the builds of 40 modules for 6 kernels. `seed` determines the durations, which are
/// between 2 and 60 s.
///
/// In each group of four modules, the second depends on the first, and the third on the second.
/// Builds for the last kernel take 1.5 times as long, as with a slower compiler.
fn forty_modules_for_six_kernels(seed: u64) -> Vec<BuildTask> {
    let mut state = seed;
    let mut next = || {
        // Knuth's MMIX generator. Only the upper bits of its state are random enough.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % 1000
    };
    // Most modules are small and a few are large.
    let durations: Vec<u64> = (0..40).map(|_| 2_000 + 58 * next() * next() / 1000).collect();
    let mut tasks = Vec::new();
    for kernel in 0..6 {
        for (module, millis) in durations.iter().enumerate() {
            let millis = if kernel == 5 { millis * 3 / 2 } else { *millis };
            let duration = Duration::from_millis(millis);
            let waits = module % 4 == 1 || module % 4 == 2;
            let after = if waits { vec![kernel * 40 + module - 1] } else { Vec::new() };
            tasks.push(BuildTask { duration, after, group: None });
        }
    }
    tasks
}

/// The minimum is the sum of all durations divided by the number of tokens, or the longest critical
/// path if that is longer.
#[rstest]
fn schedules_take_at_most_a_tenth_longer_than_the_minimum(
    #[values(2, 16, 64)] tokens: u32,
    #[values(1, 2, 3, 4, 5)] seed: u64,
) {
    let tasks = forty_modules_for_six_kernels(seed);
    let work: Duration = tasks.iter().map(|task| task.duration).sum();
    let chain = critical_paths(&tasks).into_iter().max().unwrap_or_default();
    let least = chain.max(work / tokens);
    let took = simulate(&tasks, tokens as usize);
    assert!(took * 10 <= least * 11, "{took:?}, but {least:?} is the minimum");
}

/// If builds cannot have private directories, the builds of a module for the six kernels run in
/// sequence.
#[test]
fn groups_keep_all_processors_busy() {
    let mut tasks = forty_modules_for_six_kernels(1);
    for (number, task) in tasks.iter_mut().enumerate() {
        task.group = Some(number % 40);
    }
    let work: Duration = tasks.iter().map(|task| task.duration).sum();
    let took = simulate(&tasks, 4);
    assert!(took * 10 <= (work / 4) * 11, "{took:?} for {work:?} of work");
}
