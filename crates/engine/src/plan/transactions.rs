//! Leaves alone the sources and kernels that a running or interrupted transaction may still change.
//!
//! While pacman upgrades a package, there is a time when neither version is on disk. Until the
//! transaction has been completed, the files that it installs or removes are therefore no basis for
//! a decision.

use super::module_for_kernel::BuildPolicy;
use super::{Note, Planner};
use crate::facts::{ModuleFacts, SourcePlace, Stage, TransactionFacts};
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId};

/// The exit code of a command that can be repeated after the transaction.
const LATER: u8 = 1;

/// The reason why a module is not built for a kernel now.
enum Obstacle<'a> {
    /// A running transaction installs, replaces or removes the kernel, its headers or the source.
    Running(&'a TransactionFacts),
    /// pacman was interrupted while it installed this source or kernel.
    Incomplete(String),
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
            Some(Obstacle::Incomplete(what)) => self.note(Note::Incomplete(what)),
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
                Stage::Interrupted if changes_kernel => {
                    Some(Obstacle::Incomplete(kernel.to_string()))
                }
                Stage::Interrupted if changes_source => {
                    Some(Obstacle::Incomplete(format!("/usr/src/{dir}")))
                }
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
                let package = transaction.packages.get(dir).cloned();
                Note::Held { module: id.clone(), package }
            }
        })
    }

    /// Plans to remove the modules that an interrupted transaction replaces, if their successors
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
        let has_partly_arrived = || {
            let in_part = |kernel: &KernelRelease| facts.kernels.contains_key(kernel);
            let mut dirs = facts.modules.values().filter(|it| it.source == SourcePlace::Present);
            open.kernels.iter().any(in_part)
                || dirs.any(|module| open.sources.contains(&module.source_dir))
        };
        !facts.modules.iter().any(is_held) && !has_partly_arrived()
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
