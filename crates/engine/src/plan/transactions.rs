//! Leaves alone the sources and kernels that a running or interrupted transaction may still change.
//!
//! While pacman upgrades a package, there is a time when neither version is on disk. Until the
//! transaction has been completed, no decision therefore relies on the files that it installs or
//! removes.

use super::module_for_kernel::BuildPolicy;
use std::collections::BTreeSet;

use super::{Action, Note, Plan, Planner, Reinstallation};
use crate::facts::{ModuleFacts, SourcePlace, Stage, Subjects, TransactionFacts};
use crate::failure::Failure;
use crate::machine::Leftovers;
use crate::names::{KernelRelease, ModuleId};

/// The exit code of a command that can be repeated after the transaction.
const LATER: u8 = 1;

/// The reason why a module is not built for a kernel now.
enum Obstacle<'a> {
    /// A running transaction installs, replaces or removes the kernel, its headers or the source.
    Running(&'a TransactionFacts),
    /// pacman was interrupted while it installed or removed this kernel or its headers.
    IncompleteKernel,
    /// pacman was interrupted while it installed the source in this directory.
    IncompleteSource(&'a str),
}

impl Planner<'_> {
    /// Returns true if a transaction prevents building a module for a kernel now. Reports this with
    /// a note, or with a failure if the module was requested by name.
    pub(super) fn leaves_to_pacman(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        policy: BuildPolicy,
    ) -> bool {
        match self.obstacle(id, kernel, policy) {
            None => return false,
            Some(Obstacle::Running(transaction)) if policy.strict => {
                let process = transaction.journal.transaction.process();
                let message = format!("pacman is still running (process {process})");
                let hint = "run the command again after the transaction";
                self.fail(id, kernel, Failure::transient(LATER, message).with_hint(hint));
            }
            Some(Obstacle::Running(transaction)) => self.note(running(transaction)),
            Some(Obstacle::IncompleteKernel) => self.note_incomplete_kernel(kernel),
            Some(Obstacle::IncompleteSource(dir)) => {
                self.note(Note::IncompleteSource(dir.to_owned()));
            }
        }
        true
    }

    fn obstacle(
        &self,
        id: &ModuleId,
        kernel: &KernelRelease,
        policy: BuildPolicy,
    ) -> Option<Obstacle<'_>> {
        let facts = self.facts;
        let dir = &facts.modules.get(id)?.source_dir;
        facts.transactions.iter().find_map(|transaction| {
            let TransactionFacts { lacking, held, .. } = transaction;
            let changes_kernel = lacking.kernels.contains(kernel);
            let changes_source = lacking.sources.contains(dir);
            let removes = held.kernels.contains(kernel) || held.sources.contains(dir);
            match transaction.stage {
                // A command in an install scriptlet: pacman waits for it.
                Stage::Running { waits_for_us: true } if policy.strict => None,
                Stage::Running { .. } => (changes_kernel || changes_source || removes)
                    .then_some(Obstacle::Running(transaction)),
                Stage::Interrupted if policy.strict => None,
                Stage::Interrupted if changes_kernel || held.kernels.contains(kernel) => {
                    Some(Obstacle::IncompleteKernel)
                }
                Stage::Interrupted if changes_source => Some(Obstacle::IncompleteSource(dir)),
                Stage::Interrupted | Stage::Completed => None,
            }
        })
    }

    /// Returns the note for a module whose source is missing because a transaction is running or
    /// was interrupted. Returns `None` for other modules.
    pub(super) fn source_held(&self, id: &ModuleId, module: &ModuleFacts) -> Option<Note> {
        let dir = &module.source_dir;
        let holds = |transaction: &&TransactionFacts| transaction.held.sources.contains(dir);
        let transaction = self.facts.transactions.iter().find(holds)?;
        Some(match transaction.stage {
            Stage::Running { .. } => running(transaction),
            Stage::Interrupted | Stage::Completed => {
                let package = transaction.packages.get(dir);
                let repair = package.map(|package| self.reinstallation(vec![package.clone()]));
                Note::Held { module: id.clone(), repair }
            }
        })
    }

    /// Adds a note for each kernel and source that is incomplete because a transaction was
    /// interrupted, and for each package whose entry in pacman's database is incomplete, unless
    /// another note names it. Drops the notes about held modules that this plan removes, and those
    /// about missing headers of incomplete kernels.
    pub(super) fn note_interruptions(&mut self) {
        let facts = self.facts;
        let Plan { after, notes, .. } = &mut self.plan;
        notes.retain(|note| match note {
            Note::Held { module, .. } => {
                !after.iter().any(|step| step.action == Action::Deregister(module.clone()))
            }
            Note::NoHeaders { kernel, .. } => !facts.is_incomplete_kernel(kernel),
            _ => true,
        });
        for transaction in facts.transactions.iter().filter(|it| it.stage == Stage::Interrupted) {
            let arriving = self.partly_arrived(&transaction.unlisted);
            let departing = transaction.held.kernels.iter().filter(|it| facts.is_alive(it));
            let kernels = arriving.kernels.iter().chain(departing);
            kernels.for_each(|kernel| self.note_incomplete_kernel(kernel));
            for dir in arriving.sources {
                self.note(Note::IncompleteSource(dir));
            }
        }
        let repairs = self.plan.notes.iter().filter_map(Note::repair);
        let named: BTreeSet<String> = repairs.flat_map(|it| it.packages.clone()).collect();
        for (package, _) in &facts.leftovers.entries {
            if !named.contains(package) {
                let repair = self.reinstallation(vec![package.clone()]);
                self.note(Note::IncompletePackage(repair));
            }
        }
    }

    fn note_incomplete_kernel(&mut self, kernel: &KernelRelease) {
        let package =
            self.facts.kernels.get(kernel).and_then(|about| about.kernel.package.as_ref());
        let repair =
            package.map(|base| self.reinstallation(vec![base.clone(), format!("{base}-headers")]));
        self.note(Note::IncompleteKernel { kernel: kernel.clone(), repair });
    }

    /// Returns the command that installs `packages` again.
    fn reinstallation(&self, packages: Vec<String>) -> Reinstallation {
        let Leftovers { lock, entries } = &self.facts.leftovers;
        let entries = entries.iter().filter(|(package, _)| packages.contains(package));
        let obstacles = lock.iter().chain(entries.map(|(_, entry)| entry)).cloned().collect();
        Reinstallation { packages, obstacles }
    }

    /// Plans to remove the modules that an interrupted transaction was replacing, if their successors
    /// are installed.
    pub(super) fn remove_succeeded(&mut self) {
        let facts = self.facts;
        let held = |module: &ModuleFacts| {
            let mut interrupted =
                facts.transactions.iter().filter(|it| it.stage == Stage::Interrupted);
            module.source_is_absent
                && interrupted.any(|it| it.held.sources.contains(&module.source_dir))
        };
        // A module that this loop removes does not count as a successor of the next module.
        for (id, module) in facts.modules.iter().filter(|(_, module)| held(module)) {
            if self.has_successors(id, module) {
                self.remove_module(id, &[id.clone()].into());
            }
        }
    }

    /// Returns true if the journal of a transaction can be deleted, because nothing is left to wait
    /// for.
    pub(super) fn is_settled(&self, transaction: &TransactionFacts) -> bool {
        let facts = self.facts;
        let TransactionFacts { lacking, unlisted, held, .. } = transaction;
        match transaction.stage {
            Stage::Running { .. } => return false,
            Stage::Completed => return true,
            Stage::Interrupted => {}
        }
        let is_held = |(id, module): (&ModuleId, &ModuleFacts)| {
            let is_kept = module.is_registered()
                && module.source != SourcePlace::Present
                && held.sources.contains(&module.source_dir)
                && !self.has_successors(id, module);
            let has_build = |kernel: &KernelRelease| {
                facts.built(id, kernel).is_some() && !facts.is_alive(kernel)
            };
            is_kept || held.kernels.iter().any(has_build)
        };
        // If a later transaction has been completed, pacman will not complete this one. Packages
        // that the database still lists were not replaced, but the others are incomplete.
        let is_superseded = facts.transactions.iter().any(|it| it.is_own);
        let open = if is_superseded { unlisted } else { lacking };
        !facts.modules.iter().any(is_held) && self.partly_arrived(open).is_empty()
    }

    /// Returns the kernels and sources in `arriving` of which something is on disk.
    fn partly_arrived(&self, arriving: &Subjects) -> Subjects {
        let facts = self.facts;
        let kernels = arriving.kernels.iter().filter(|it| facts.kernels.contains_key(it));
        let present = facts.modules.values().filter(|it| it.source == SourcePlace::Present);
        let sources = present.map(|module| &module.source_dir);
        let sources = sources.filter(|dir| arriving.sources.contains(*dir));
        Subjects { sources: sources.cloned().collect(), kernels: kernels.cloned().collect() }
    }
}

/// Returns the note that lists the kernels and sources that are left to a running transaction.
fn running(transaction: &TransactionFacts) -> Note {
    let TransactionFacts { lacking, held, .. } = transaction;
    let kernels = lacking.kernels.union(&held.kernels).map(ToString::to_string);
    let sources = lacking.sources.union(&held.sources).map(|dir| format!("/usr/src/{dir}"));
    let process = transaction.journal.transaction.process();
    Note::Running { process, left: kernels.chain(sources).collect() }
}
