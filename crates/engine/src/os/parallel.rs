//! Applies a function to the items of a list, on all cores.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The number of small items that can be processed in about the time that a thread needs to start.
const PER_THREAD: usize = 16;

/// Applies `map` to every item and returns the results in the order of the items.
pub(crate) fn on_all_cores<T: Sync, A: Send + Sync>(
    items: &[T],
    map: impl Fn(&T) -> A + Sync,
) -> Vec<A> {
    spread(items, items.len().div_ceil(PER_THREAD).min(cores()), || (), |(), item| map(item))
}

/// Applies `map` to every item, like [`on_all_cores`], but with up to `threads` threads.
///
/// Meant for items that wait for a disk.
pub(crate) fn on_threads<T: Sync, A: Send + Sync>(
    items: &[T],
    threads: usize,
    map: impl Fn(&T) -> A + Sync,
) -> Vec<A> {
    spread(items, items.len().min(threads), || (), |(), item| map(item))
}

/// Applies `map` to every item, like [`on_all_cores`], but with one thread per item, up to the
/// number of cores.
///
/// Meant for slow items. Each thread calls `init` once and passes its result to `map`.
pub(crate) fn on_all_cores_with<T: Sync, A: Send + Sync, S>(
    items: &[T],
    init: impl Fn() -> S + Sync,
    map: impl Fn(&mut S, &T) -> A + Sync,
) -> Vec<A> {
    spread(items, items.len().min(cores()), init, map)
}

fn spread<T: Sync, A: Send + Sync, S>(
    items: &[T],
    threads: usize,
    init: impl Fn() -> S + Sync,
    map: impl Fn(&mut S, &T) -> A + Sync,
) -> Vec<A> {
    if items.is_empty() {
        return Vec::new();
    }
    if threads < 2 {
        let mut state = init();
        return items.iter().map(|item| map(&mut state, item)).collect();
    }
    let results: Vec<OnceLock<A>> = items.iter().map(|_| OnceLock::new()).collect();
    // Each idle thread takes the next item, since items differ widely in size.
    let next = AtomicUsize::new(0);
    let work = || {
        let mut state = init();
        while let Some((item, result)) = {
            let number = next.fetch_add(1, Ordering::Relaxed);
            items.get(number).zip(results.get(number))
        } {
            let _ = result.set(map(&mut state, item));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // If a thread cannot be started, the threads that are already running process all
            // items.
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, work) {
                log::info!("cannot start a thread: {error}");
                break;
            }
        }
        work();
    });
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// Returns the number of available cores.
///
/// The number is determined only once, because std reads several cgroup files each time.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, NonZeroUsize::get))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..1000).collect();
        let twice = |item: &usize| item * 2;
        let want: Vec<usize> = items.iter().map(twice).collect();
        assert_eq!(on_all_cores(&items, twice), want);
        assert_eq!(on_all_cores(&items[..3], twice), want[..3]);
        assert_eq!(on_all_cores_with(&items, || 2, |two, item| item * *two), want);
        assert!(on_all_cores(&[], twice).is_empty());
    }
}
