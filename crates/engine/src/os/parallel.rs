//! Maps a list on all cores.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Returns what `map` makes of every item, in the order of the items. A thread is worth its cost for
/// `enough` items; fewer are mapped one after the other.
pub(crate) fn on_all_cores<T: Sync, A: Send + Sync>(
    items: &[T],
    enough: usize,
    map: impl Fn(&T) -> A + Sync,
) -> Vec<A> {
    on_all_cores_with(items, enough, || (), |(), item| map(item))
}

/// As [`on_all_cores`], where each thread needs something of its own that `equip` makes.
pub(crate) fn on_all_cores_with<T: Sync, A: Send + Sync, E>(
    items: &[T],
    enough: usize,
    equip: impl Fn() -> E + Sync,
    map: impl Fn(&mut E, &T) -> A + Sync,
) -> Vec<A> {
    if items.is_empty() {
        return Vec::new();
    }
    let threads = items.len().div_ceil(enough.max(1)).min(cores());
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
        assert_eq!(on_all_cores(&items, 1, twice), want);
        assert_eq!(on_all_cores(&items, 5000, twice), want);
        assert!(on_all_cores(&[], 0, twice).is_empty());
    }
}
