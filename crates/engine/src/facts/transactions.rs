//! Determines which sources and kernels the recorded transactions have installed and removed, and
//! which changes are still incomplete.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::mem;

use crate::dkms_tree::{Before, Journal, JournalPath, PendingWork};
use crate::machine::{Leftovers, Machine, Target, Transaction, Trees};
use crate::names::KernelRelease;
use crate::os::stat::FileStamp;

/// A set of sources and kernels. A kernel's headers count as part of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subjects {
    /// The names (`name-version`) of directories in the source tree.
    pub sources: BTreeSet<String>,
    /// The releases of kernels.
    pub kernels: BTreeSet<KernelRelease>,
}

/// The progress of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Everything that was to arrive has arrived, and everything that was to depart has departed.
    Completed,
    /// pacman ended before everything had arrived and departed.
    Interrupted,
    /// pacman is still running, or may be.
    Running {
        /// Whether pacman has started this process and waits for it.
        waits_for_us: bool,
    },
}

/// The facts about one recorded transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransactionFacts {
    pub(crate) stage: Stage,
    /// The kernels and sources whose files have all been installed.
    pub(crate) arrived: Subjects,
    /// Everything that was to arrive, but has arrived only in part or not at all.
    pub(crate) lacking: Subjects,
    /// The subjects in `lacking` that pacman's database is not proved to list. Their files stay
    /// incomplete until their packages are installed again.
    pub(crate) unlisted: Subjects,
    /// The departures whose outcome is known: the source or kernel has been removed, or it exists.
    pub(crate) departed: Subjects,
    /// The departures that are not certain: all of them while the transaction runs. After an
    /// interruption, only those that are missing and that a completed upgrade may restore.
    pub(crate) held: Subjects,
    /// The packages that owned the departing sources, by the names of the source directories.
    pub(crate) packages: BTreeMap<String, String>,
    /// Whether this process is a hook that runs after the transaction.
    pub(crate) is_own: bool,
    pub(crate) journal: Journal,
}

/// The transaction that a hook belongs to.
#[derive(Debug, Clone)]
pub struct OwnTransaction {
    /// The transaction in which the hook runs.
    pub transaction: Transaction,
    /// Whether the hook is known to run after the transaction. pacman runs PostTransaction hooks
    /// only if the transaction has been completed.
    pub is_completed: bool,
}

impl Subjects {
    fn insert(&mut self, target: Target) {
        match target {
            Target::Source(dir) => drop(self.sources.insert(dir)),
            Target::Kernel(release) | Target::Headers(release) => {
                self.kernels.insert(release);
            }
        }
    }

    fn of<'p>(paths: impl Iterator<Item = &'p String>) -> Self {
        let mut subjects = Self::default();
        paths.filter_map(|path| Target::parse(path)).for_each(|target| subjects.insert(target));
        subjects
    }

    /// Adds `others`.
    pub fn extend(&mut self, others: &Self) {
        self.sources.extend(others.sources.iter().cloned());
        self.kernels.extend(others.kernels.iter().cloned());
    }

    /// Removes `others`.
    fn remove(&mut self, others: &Self) {
        self.sources.retain(|dir| !others.sources.contains(dir));
        self.kernels.retain(|kernel| !others.kernels.contains(kernel));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.kernels.is_empty()
    }
}

/// Returns everything that pending work and recorded transactions concern.
pub(super) fn concerned<'a>(
    pending: impl IntoIterator<Item = &'a PendingWork>,
    recorded: &[TransactionFacts],
) -> Subjects {
    let mut all = Subjects::default();
    for transaction in recorded {
        let TransactionFacts { arrived, lacking, departed, held, .. } = transaction;
        [arrived, lacking, departed, held].into_iter().for_each(|part| all.extend(part));
    }
    for work in pending {
        match work {
            PendingWork::Source(dir) | PendingWork::DepartedSource(dir) => {
                all.sources.insert(dir.clone());
            }
            PendingWork::Kernel(kernel)
            | PendingWork::DepartedKernel(kernel)
            | PendingWork::Install { kernel, .. }
            | PendingWork::Uninstall { kernel, .. } => drop(all.kernels.insert(kernel.clone())),
            PendingWork::Transaction { sources, kernels } => {
                all.sources.extend(sources.iter().cloned());
                all.kernels.extend(kernels.iter().cloned());
            }
            PendingWork::Remove(id) => drop(all.sources.insert(id.source_dir())),
            PendingWork::Image { .. } => {}
        }
    }
    all
}

/// Reads the journals and returns the facts about their transactions. `own` is the transaction of
/// this hook, if any.
pub(super) fn read(machine: &Machine, own: Option<&OwnTransaction>) -> Vec<TransactionFacts> {
    let trees = &machine.trees;
    let journals = Journal::read_all(trees);
    // Paths that the hook's own transaction has removed can no longer arrive.
    let completed = own.filter(|own| own.is_completed);
    let ours =
        journals.iter().find(|it| completed.is_some_and(|own| own.transaction == it.transaction));
    let removed: BTreeSet<String> =
        ours.into_iter().flat_map(|journal| journal.departing.keys().cloned()).collect();
    let judge = |journal| TransactionFacts::of(trees, journal, own, &removed);
    journals.into_iter().map(judge).collect()
}

/// Returns the leftovers of interrupted transactions. `own` is the transaction of this hook, if
/// any.
pub(super) fn leftovers(
    trees: &Trees,
    own: Option<&OwnTransaction>,
    recorded: &[TransactionFacts],
) -> Leftovers {
    let mut interrupted = recorded.iter().filter(|it| it.stage == Stage::Interrupted);
    let Some(interrupted) = interrupted.next() else { return Leftovers::default() };
    // When this hook runs, the packages of its own transaction are complete.
    let completed = own.filter(|own| own.is_completed).map(|own| &own.transaction);
    completed.unwrap_or(&interrupted.journal.transaction).leftovers(trees)
}

/// Returns pacman's process ID if a recorded transaction is running and does not wait for this
/// process. Otherwise returns `None`.
#[must_use]
pub fn running_pacman(machine: &Machine) -> Option<u32> {
    let foreign = Stage::Running { waits_for_us: false };
    let running = read(machine, None).into_iter().find(|transaction| transaction.stage == foreign);
    running.map(|transaction| transaction.journal.transaction.process())
}

/// Returns the names of the source directories that an interrupted transaction may have unpacked
/// only in part.
#[must_use]
pub fn partly_unpacked_sources(machine: &Machine) -> BTreeSet<String> {
    let transactions = read(machine, None).into_iter();
    let interrupted = transactions.filter(|transaction| transaction.stage == Stage::Interrupted);
    interrupted.flat_map(|transaction| transaction.lacking.sources).collect()
}

impl TransactionFacts {
    fn of(
        trees: &Trees,
        journal: Journal,
        own: Option<&OwnTransaction>,
        removed: &BTreeSet<String>,
    ) -> Self {
        let own = own.filter(|own| own.transaction == journal.transaction);
        let packages = journal.departing.iter().filter_map(|(path, about)| {
            let Some(Target::Source(dir)) = Target::parse(path) else { return None };
            Some((dir, about.package.clone()?))
        });
        let mut facts = Self {
            stage: Stage::Completed,
            arrived: Subjects::of(journal.arriving.keys()),
            lacking: Subjects::default(),
            unlisted: Subjects::default(),
            departed: Subjects::of(journal.departing.keys()),
            held: Subjects::default(),
            packages: packages.collect(),
            is_own: own.is_some_and(|own| own.is_completed),
            journal,
        };
        if facts.is_own {
            return facts;
        }
        let waits_for_us = facts.journal.transaction.contains_this_process();
        let running = Stage::Running { waits_for_us };
        if own.is_none() && !facts.journal.transaction.is_over(trees) {
            facts.stage = running;
            facts.lacking = mem::take(&mut facts.arrived);
            facts.held = mem::take(&mut facts.departed);
            return facts;
        }
        facts.keep_proved(trees, removed);
        if !facts.lacking.is_empty() || !facts.held.is_empty() {
            // An administrator's hook that calls this program may run before the transaction.
            facts.stage = if own.is_some() { running } else { Stage::Interrupted };
        }
        facts
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running { .. })
    }

    /// Returns pending work for everything that has arrived.
    pub(super) fn to_pending(&self) -> PendingWork {
        let Subjects { sources, kernels } = self.arrived.clone();
        PendingWork::Transaction { sources, kernels }
    }

    /// Moves subjects to `lacking` unless they are proved to have arrived, and missing subjects to
    /// `held` unless they are proved to have departed.
    ///
    /// `removed` are the paths that a later transaction has removed.
    ///
    /// Until everything has arrived, every departure may belong to an unfinished upgrade. An
    /// unreadable database proves nothing.
    fn keep_proved(&mut self, trees: &Trees, removed: &BTreeSet<String>) {
        let Journal { transaction, arriving, departing, .. } = &self.journal;
        let paths = arriving.keys().chain(departing.keys()).cloned().collect();
        let owners = transaction.owners(trees, &paths).ok();
        let is_owned = |path: &String| owners.as_ref().map(|owners| owners.contains_key(path));
        let has_arrived = |path: &String, about: &JournalPath| {
            is_owned(path) == Some(true) && is_new(trees, path, &about.before)
        };
        let lacking = arriving.iter().filter(|(path, about)| !has_arrived(path, about));
        let (removed, lacking): (Vec<_>, Vec<_>) =
            lacking.map(|(path, _)| path).partition(|path| removed.contains(*path));
        let unlisted = lacking.iter().copied().filter(|path| is_owned(path) != Some(true));
        self.unlisted = Subjects::of(unlisted);
        self.lacking = Subjects::of(lacking.into_iter());
        self.arrived.remove(&self.lacking);
        self.arrived.remove(&Subjects::of(removed.into_iter()));
        let everything_arrived = self.lacking.is_empty();
        // If anything was to arrive, the package may have been upgraded. The database then contains
        // its new version.
        let is_removed =
            |package: &String| !arriving.is_empty() || transaction.has_removed(trees, package);
        let has_departed = |path: &String, about: &JournalPath| {
            everything_arrived
                && is_owned(path) == Some(false)
                && about.package.as_ref().is_none_or(is_removed)
                && is_absent(trees, path)
        };
        let is_there = |path: &String| fs::symlink_metadata(trees.root.join(path)).is_ok();
        let held = departing.iter();
        let held = held.filter(|(path, about)| !has_departed(path, about) && !is_there(path));
        self.held = Subjects::of(held.map(|(path, _)| path));
        self.departed.remove(&self.held);
    }
}

/// Returns true if it is certain that a path does not exist.
fn is_absent(trees: &Trees, path: &str) -> bool {
    let result = fs::symlink_metadata(trees.root.join(path));
    result.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Returns true if a path exists and is not the same file as before the transaction.
fn is_new(trees: &Trees, path: &str, before: &Before) -> bool {
    let Ok(meta) = fs::symlink_metadata(trees.root.join(path)) else { return false };
    match before {
        Before::File(stamp) => meta.is_dir() || *stamp != FileStamp::of(&meta),
        Before::Absent | Before::Directory | Before::Unknown => true,
    }
}

#[cfg(test)]
mod tests;
