//! Builds that ran out of memory: each is tried once more, alone.

use std::collections::{BTreeSet, VecDeque};

use crate::failure::Failure;

/// The builds of one run, by number.
#[derive(Debug, Default)]
pub(super) struct Retry {
    waiting: VecDeque<usize>,
    tried: BTreeSet<usize>,
    running: bool,
}

impl Retry {
    /// Takes in how a build ended; tells whether it is going to be tried again.
    pub(super) fn takes<T>(&mut self, number: usize, ended: &mut Result<T, Failure>) -> bool {
        self.running = false;
        let Some(failed) = ended.as_mut().err().filter(|failed| failed.out_of_memory) else {
            return false;
        };
        if self.tried.insert(number) {
            self.waiting.push_back(number);
            return true;
        }
        failed.message +=
            "; alone, too: it needs more memory or swap than is left by what else runs";
        false
    }

    /// The next one to be tried again, once nothing else runs.
    pub(super) fn begin(&mut self) -> Option<usize> {
        let next = self.waiting.pop_front();
        self.running = next.is_some();
        next
    }

    /// Returns true if one is being tried again: it runs alone.
    pub(super) fn is_running(&self) -> bool {
        self.running
    }
}
