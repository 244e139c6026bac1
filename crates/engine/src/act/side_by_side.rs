//! Tracks which builds of a module ran side by side, and decides which of them to repeat alone.
//!
//! dkms builds a module for one kernel at a time. Therefore, a module's result must not depend on
//! the builds that the engine runs in parallel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::building::{Attempt, Tried};
use crate::failure::Failure;

/// The builds of a run, by job number, and which of them ran at the same time.
#[derive(Debug, Default)]
pub(super) struct SideBySide {
    /// The index of each job's module.
    modules: Vec<usize>,
    /// The modules whose builds run one at a time.
    in_turn: BTreeSet<usize>,
    running: BTreeSet<usize>,
    /// For each build, the other builds of its module that ran at the same time.
    beside: BTreeMap<usize, BTreeSet<usize>>,
    /// The builds that have ended but are not accepted yet.
    held: BTreeMap<usize, (Tried, Duration)>,
    accepted: BTreeSet<usize>,
    /// The builds that ran while the source changed, or beside such a build.
    spoiled: BTreeSet<usize>,
    /// The repeated builds, each with the failure of its first attempt; `None` if that attempt was
    /// spoiled.
    repeated: BTreeMap<usize, Option<Failure>>,
    /// The modules with a failed build that is being repeated.
    retrying: BTreeSet<usize>,
    /// The modules with a build that failed in the same way when it was repeated.
    broken: BTreeSet<usize>,
}

/// A decision about a build that has ended.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The result of the build counts. The duration is that of the last attempt.
    Accept(usize, Tried, Duration),
    /// The build is repeated while no other build of its module runs.
    Repeat(usize),
}

impl SideBySide {
    /// Returns the state before any build has started. `modules` contains the index of each job's
    /// module, and `in_turn` the indexes of the modules whose builds run one at a time.
    pub(super) fn new(modules: Vec<usize>, in_turn: BTreeSet<usize>) -> Self {
        Self { modules, in_turn, ..Self::default() }
    }

    /// Records the start of a build and returns its mode. `is_only` is true if no other build
    /// starts until this one has ended.
    pub(super) fn starts(&mut self, number: usize, is_only: bool) -> Attempt {
        let others: BTreeSet<usize> =
            self.jobs_beside(number).filter(|other| self.running.contains(other)).collect();
        for other in &others {
            self.beside.entry(*other).or_default().insert(number);
        }
        self.beside.insert(number, others);
        self.running.insert(number);
        let mut open = self.jobs_beside(number).filter(|other| !self.accepted.contains(other));
        if self.repeated.contains_key(&number) {
            Attempt::Alone
        } else if is_only || self.in_turn.contains(&self.modules[number]) || open.next().is_none() {
            Attempt::Only
        } else {
            Attempt::Beside
        }
    }

    /// Records the end of a build, and returns the decisions that are possible now.
    ///
    /// The decision about a build is made when all builds beside it have ended, since the source
    /// can change during any of those builds.
    pub(super) fn ends(&mut self, number: usize, tried: Tried, elapsed: Duration) -> Vec<Verdict> {
        let module = self.modules[number];
        self.running.remove(&number);
        if tried.source_changed {
            self.in_turn.insert(module);
            if let Some(others) = self.beside.get(&number).filter(|others| !others.is_empty()) {
                self.spoiled.insert(number);
                self.spoiled.extend(others);
            }
        }
        if let Some(first) = self.repeated.get(&number) {
            self.retrying.remove(&module);
            let second = tried.result.as_ref().err();
            if first.as_ref().zip(second).is_some_and(|(first, second)| are_alike(first, second)) {
                self.broken.insert(module);
            }
        }
        self.held.insert(number, (tried, elapsed));
        let held: Vec<usize> =
            self.held.keys().copied().filter(|held| self.modules[*held] == module).collect();
        held.into_iter().filter_map(|held| self.decide(held)).collect()
    }

    /// Returns the number of a build that has started but is not accepted, and marks it as
    /// accepted. Returns `None` if there is no such build. Called after a request to stop, when no
    /// build runs and none is repeated.
    pub(super) fn give_up(&mut self) -> Option<usize> {
        let mut started = self.beside.keys().copied();
        let number = started.find(|number| !self.accepted.contains(number))?;
        self.accepted.insert(number);
        Some(number)
    }

    /// Returns the group of builds that run one at a time from now on, to which the job belongs;
    /// `None` if the builds of its module can run in parallel.
    pub(super) fn group(&self, number: usize) -> Option<usize> {
        let module = self.modules[number];
        let repeats = || self.repeated.keys().any(|job| self.modules[*job] == module);
        let is_in_turn =
            self.in_turn.contains(&module) || (!self.broken.contains(&module) && repeats());
        is_in_turn.then_some(module)
    }

    /// Returns the numbers of all jobs of the job's module, including its own.
    pub(super) fn jobs_of_module(&self, number: usize) -> impl Iterator<Item = usize> + '_ {
        let module = self.modules[number];
        (0..self.modules.len()).filter(move |other| self.modules[*other] == module)
    }

    /// Returns true if the job's build has started before and is repeated.
    pub(super) fn is_repeated(&self, number: usize) -> bool {
        self.repeated.contains_key(&number)
    }

    fn jobs_beside(&self, number: usize) -> impl Iterator<Item = usize> + '_ {
        self.jobs_of_module(number).filter(move |other| *other != number)
    }

    /// Decides about a build that has ended. Returns `None` if the decision must wait for other
    /// builds.
    fn decide(&mut self, number: usize) -> Option<Verdict> {
        let (tried, _) = self.held.get(&number)?;
        if tried.is_restored() {
            return self.accept(number);
        }
        let beside = self.beside.get(&number);
        if beside.is_some_and(|others| !others.is_disjoint(&self.running)) {
            return None;
        }
        let had_company = beside.is_some_and(|others| !others.is_empty());
        let module = self.modules[number];
        let failed = tried.result.as_ref().err();
        // A build that ran out of memory is retried anyway, at a time when no other build runs at
        // all.
        let may_repeat = !self.repeated.contains_key(&number)
            && !failed.is_some_and(|failed| failed.out_of_memory);
        let is_spoiled = self.spoiled.remove(&number);
        let first = if is_spoiled { None } else { failed.cloned() };
        let retries = first.is_some() && had_company && !self.broken.contains(&module);
        if may_repeat && (is_spoiled || retries) {
            if retries && !self.retrying.insert(module) {
                return None;
            }
            self.held.remove(&number);
            self.repeated.insert(number, first);
            return Some(Verdict::Repeat(number));
        }
        self.accept(number)
    }

    fn accept(&mut self, number: usize) -> Option<Verdict> {
        let (tried, elapsed) = self.held.remove(&number)?;
        self.accepted.insert(number);
        Some(Verdict::Accept(number, tried, elapsed))
    }
}

fn are_alike(first: &Failure, second: &Failure) -> bool {
    (first.code, &first.message, &first.cause) == (second.code, &second.message, &second.cause)
}

#[cfg(test)]
mod tests;
