//! Maps a list on all cores.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// So many small items take longer than starting a thread.
const PER_THREAD: usize = 16;

/// Returns what `map` makes of every item, in the order of the items.
pub(crate) fn on_all_cores<T: Sync, A: Send + Sync>(
    items: &[T],
    map: impl Fn(&T) -> A + Sync,
) -> Vec<A> {
    spread(items, PER_THREAD, || (), |(), item| map(item))
}

/// As [`on_all_cores`], for items that each take long, where each thread needs something of its own
/// that `equip` makes.
pub(crate) fn on_all_cores_with<T: Sync, A: Send + Sync, E>(
    items: &[T],
    equip: impl Fn() -> E + Sync,
    map: impl Fn(&mut E, &T) -> A + Sync,
) -> Vec<A> {
    spread(items, 1, equip, map)
}

fn spread<T: Sync, A: Send + Sync, E>(
    items: &[T],
    per_thread: usize,
    equip: impl Fn() -> E + Sync,
    map: impl Fn(&mut E, &T) -> A + Sync,
) -> Vec<A> {
    if items.is_empty() {
        return Vec::new();
    }
    let threads = items.len().div_ceil(per_thread).min(cores());
    if threads < 2 {
        let mut equipment = equip();
        return items.iter().map(|item| map(&mut equipment, item)).collect();
    }
    let results: Vec<OnceLock<A>> = items.iter().map(|_| OnceLock::new()).collect();
    // A free thread takes the next item: a tree may be a hundred times as large as another.
    let next = AtomicUsize::new(0);
    let work = || {
        let mut equipment = equip();
        while let Some((item, result)) = {
            let number = next.fetch_add(1, Ordering::Relaxed);
            items.get(number).zip(results.get(number))
        } {
            let _ = result.set(map(&mut equipment, item));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// Returns the number of cores. It is read once: that takes several files of the control group.
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
