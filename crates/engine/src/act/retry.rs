//! Retries builds that ran out of memory: each once, while no other build runs.

use std::collections::{BTreeSet, VecDeque};

use crate::failure::Failure;

/// The builds of a run that ran out of memory, by job number.
#[derive(Debug, Default)]
pub(super) struct Retry {
    waiting: VecDeque<usize>,
    tried: BTreeSet<usize>,
    running: bool,
}

impl Retry {
    /// Records the end of a build.
    pub(super) fn ended(&mut self) {
        self.running = false;
    }

    /// Returns true if the build of job `number`, which has ended with the result `ended`, ran out
    /// of memory and will be retried. If the build already was a retry, extends the message of its
    /// failure.
    pub(super) fn takes<T>(&mut self, number: usize, ended: &mut Result<T, Failure>) -> bool {
        let Some(failed) = ended.as_mut().err().filter(|failed| failed.out_of_memory) else {
            return false;
        };
        if self.tried.insert(number) {
            self.waiting.push_back(number);
            return true;
        }
        failed.message += "; the retry without other builds failed too: add memory or swap";
        false
    }

    /// Returns the number of the next build to retry, or `None` if no build is waiting. The caller
    /// must ensure that no other build runs.
    pub(super) fn begin(&mut self) -> Option<usize> {
        let next = self.waiting.pop_front();
        self.running = next.is_some();
        next
    }

    /// Returns true while a retried build runs. No other build may start during that time.
    pub(super) fn is_running(&self) -> bool {
        self.running
    }
}
