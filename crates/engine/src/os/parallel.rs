//! Maps a list on all cores.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Asks `ask` of every item, and gives the answers in the order of the items. A thread is worth its
/// cost for `enough` items; fewer are asked about one after the other.
pub(crate) fn on_all_cores<T: Sync, A: Send + Sync>(
    items: &[T],
    enough: usize,
    ask: impl Fn(&T) -> A + Sync,
) -> Vec<A> {
    on_all_cores_with(items, enough, || (), |(), item| ask(item))
}

/// The same, for what is asked with something that each thread needs one of: `equip` makes it.
pub(crate) fn on_all_cores_with<T: Sync, A: Send + Sync, E>(
    items: &[T],
    enough: usize,
    equip: impl Fn() -> E + Sync,
    ask: impl Fn(&mut E, &T) -> A + Sync,
) -> Vec<A> {
    if items.is_empty() {
        return Vec::new();
    }
    let threads = items.len().div_ceil(enough.max(1)).min(cores());
    if threads < 2 {
        let mut equipment = equip();
        return items.iter().map(|item| ask(&mut equipment, item)).collect();
    }
    let answers: Vec<OnceLock<A>> = items.iter().map(|_| OnceLock::new()).collect();
    // Whoever is free takes the next one: a tree may be a hundred times as large as another.
    let next = AtomicUsize::new(0);
    let work = || {
        let mut equipment = equip();
        while let Some((item, answer)) = {
            let number = next.fetch_add(1, Ordering::Relaxed);
            items.get(number).zip(answers.get(number))
        } {
            let _ = answer.set(ask(&mut equipment, item));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    answers.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// How many cores there are. RunOptions once: it takes reading several files of the control group.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, NonZeroUsize::get))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_stand_in_the_order_of_the_questions() {
        let items: Vec<usize> = (0..1000).collect();
        let twice = |item: &usize| item * 2;
        let want: Vec<usize> = items.iter().map(twice).collect();
        assert_eq!(on_all_cores(&items, 1, twice), want);
        assert_eq!(on_all_cores(&items, 5000, twice), want);
        assert!(on_all_cores(&[], 0, twice).is_empty());
    }
}
