//! Property tests: a plan removes an object only if a completed departure or a command names it.
//!
//! The generated machines combine complete and partly unpacked kernels, sources that are present,
//! absent or unreadable, builds in all states, pending work and journals of transactions that run,
//! have ended or have been completed.

mod carry_out;
mod facts;
mod scenario;

use std::fmt::Write;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::plan::{Action, Step, Task};
use carry_out::carry_out;
use scenario::*;

impl Scenario {
    /// Returns true if the objects and the build of a module for a kernel may be removed: a
    /// command, a completed departure or a removal that has begun names them.
    fn may_be_removed(&self, module: &ModuleId, kernel: &KernelRelease) -> bool {
        let work = PendingWork::Uninstall { module: module.clone(), kernel: kernel.clone() };
        let is_named = match &self.request {
            Request::Command { verb, module: id, kernels, .. } => {
                let is_removal = matches!(verb, Verb::Uninstall | Verb::Unbuild | Verb::Remove);
                is_removal
                    && id == module
                    && kernels.as_ref().is_none_or(|kernels| kernels.contains(kernel))
            }
            Request::Clear { kernel: release, .. } => release == kernel,
            Request::Depart { kernels, swap, .. } => !swap && kernels.contains(kernel),
            _ => false,
        };
        is_named
            || self.pending.contains(&work)
            || self.may_be_deregistered(module)
            || self.may_be_swept(kernel)
    }

    /// Returns true if a module may be removed for all kernels.
    fn may_be_deregistered(&self, module: &ModuleId) -> bool {
        let dir = module.source_dir();
        let source = self.source(&module.to_string());
        let is_absent = matches!(source, None | Some(Source::Absent | Source::Lost));
        let is_named = match &self.request {
            Request::Command { verb: Verb::Remove, module: id, kernels, .. } => {
                id == module && kernels.is_none()
            }
            Request::Depart { sources, swap, .. } => !swap && sources.contains(&dir),
            _ => false,
        };
        is_named
            || self.pending.contains(&PendingWork::Remove(module.clone()))
            || is_absent
                && self.has_departed(
                    |it| it.sources.contains(&dir),
                    |subject| match subject {
                        Subject::Source(name) => id(name) == *module,
                        Subject::Kernel(_) => false,
                    },
                )
            || is_absent && self.pending.contains(&PendingWork::DepartedSource(dir.clone()))
    }

    /// Returns true if the directory of a kernel and all builds for it may be removed.
    fn may_be_swept(&self, kernel: &KernelRelease) -> bool {
        let state = self.kernel(kernel.as_str());
        let is_gone =
            self.install_tree_is_readable && !state.is_alive() && state != KernelState::Link;
        is_gone
            && (self.pending.contains(&PendingWork::DepartedKernel(kernel.clone()))
                || self.has_departed(
                    |it| it.kernels.contains(kernel),
                    |subject| match subject {
                        Subject::Source(_) => false,
                        Subject::Kernel(release) => release == kernel.as_str(),
                    },
                ))
    }

    /// Returns true if a kernel is installed, cannot be examined, or is part of a transaction that
    /// has not been completed.
    fn may_exist(&self, release: &KernelRelease) -> bool {
        let state = self.kernel(release.as_str());
        let is_unfinished = |journal: &JournalState| {
            journal.paths.iter().any(|path| {
                let is_done = path.is_done && (path.arrives || journal.has_arrived());
                let is_it = matches!(path.subject, Subject::Kernel(it) if it == release.as_str());
                is_it && journal.progress != Progress::Own && (journal.is_running() || !is_done)
            })
        };
        state.is_alive()
            || state == KernelState::Link
            || !self.install_tree_is_readable
            || self.journals.iter().any(is_unfinished)
    }

    /// Returns true if a subject has departed, in the transaction of this hook or in one whose
    /// journal proves the departure. `is_listed` and `is_it` select the subject.
    fn has_departed(
        &self,
        is_listed: impl Fn(&Subjects) -> bool,
        is_it: impl Fn(Subject) -> bool,
    ) -> bool {
        let is_of_hook =
            matches!(&self.request, Request::Sync { departed, .. } if is_listed(departed));
        let mut proved = self.journals.iter().filter(|it| it.has_arrived()).flat_map(|journal| {
            journal
                .paths
                .iter()
                .filter(|path| !path.arrives && (path.is_done || journal.progress == Progress::Own))
        });
        is_of_hook || proved.any(|path| is_it(path.subject))
    }

    /// Returns true if a module's source is absent, and a transaction that has ended was to remove
    /// it.
    fn is_held(&self, module: &ModuleId) -> bool {
        let is_absent =
            matches!(self.source(&module.to_string()), Some(Source::Absent | Source::Lost));
        let mut ended = self.journals.iter().filter(|it| it.progress == Progress::Ended);
        is_absent
            && ended.any(|it| {
                it.paths.iter().any(|path| {
                    !path.arrives
                        && matches!(path.subject, Subject::Source(name) if id(name) == *module)
                })
            })
    }
}

/// Returns all builds, each as its module and its kernel.
fn built(facts: &Facts) -> BTreeSet<(&ModuleId, &KernelRelease)> {
    let modules = facts.modules.iter();
    let pairs = modules.flat_map(|(id, module)| module.pairs.keys().map(move |it| (id, it)));
    pairs.filter(|(id, kernel)| facts.built(id, kernel).is_some()).collect()
}

/// Returns the modules that are installed, each with its kernel.
fn installed(facts: &Facts) -> BTreeSet<(&ModuleId, &KernelRelease)> {
    let modules = facts.modules.iter();
    let pairs = modules.flat_map(|(id, module)| module.pairs.keys().map(move |it| (id, it)));
    pairs.filter(|(id, kernel)| facts.is_installed_or_placed(id, kernel)).collect()
}

/// Returns true if a module with the object of `module` is installed for a kernel.
fn has_object_of(facts: &Facts, module: &ModuleId, kernel: &KernelRelease) -> bool {
    let object = facts::object(module).name;
    let mut others = installed(facts).into_iter().filter(|(_, release)| *release == kernel);
    others.any(|(id, _)| facts::object(id).name == object)
}

/// Returns a configuration with at least 1000 cases, which are the same in each run unless
/// `PROPTEST_RNG_SEED` is set.
fn config() -> ProptestConfig {
    let given = ProptestConfig::default();
    let rng_seed = match given.rng_seed {
        RngSeed::Random => RngSeed::Fixed(16),
        seed => seed,
    };
    let cases = given.cases.max(1000);
    ProptestConfig { failure_persistence: None, rng_seed, cases, ..given }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_is_removed_that_neither_a_departure_nor_a_command_names(
        scenario in scenario(),
        failing in prop::collection::btree_set(0..4usize, 0..3),
    ) {
        let facts = scenario.facts();
        let Ok(plan) = make(&scenario.request, &facts) else { return Ok(()) };
        let after = carry_out(&facts, &plan, &failing);
        // The objects of an interrupted upgrade may be replaced, but do not disappear.
        let is_succeeded = |module: &ModuleId| {
            let installed = installed(&facts).into_iter().filter(|(id, _)| *id == module);
            let mut kernels = installed.filter(|(_, kernel)| scenario.may_exist(kernel)).peekable();
            scenario.is_held(module)
                && kernels.peek().is_some()
                && kernels.all(|(_, kernel)| has_object_of(&after, module, kernel))
        };
        for (module, kernel) in installed(&facts) {
            prop_assert!(
                has_object_of(&after, module, kernel)
                    || scenario.may_be_removed(module, kernel)
                    || is_succeeded(module) && !scenario.may_exist(kernel),
                "the object of {module} for {kernel} disappears:\n{plan}"
            );
        }
        for (module, kernel) in built(&facts).difference(&built(&after)) {
            prop_assert!(
                scenario.may_be_removed(module, kernel) || is_succeeded(module),
                "the build of {module} for {kernel} disappears:\n{plan}"
            );
        }
        for step in plan.steps() {
            match &step.action {
                Action::Deregister(module) => {
                    let has_build = built(&after).iter().any(|(id, _)| *id == module);
                    prop_assert!(
                        scenario.may_be_deregistered(module)
                            || is_succeeded(module)
                            || matches!(&scenario.request, Request::Command { .. }) && !has_build,
                        "{module} disappears:\n{plan}"
                    );
                }
                Action::RemoveLeftovers(kernel) => {
                    let state = scenario.kernel(kernel.as_str());
                    prop_assert!(
                        scenario.may_be_swept(kernel)
                            || state == KernelState::Leftovers
                                && matches!(&scenario.request, Request::Command { .. }),
                        "the directory of {kernel} disappears:\n{plan}"
                    );
                }
                Action::Leave => {
                    let departs = matches!(&scenario.request, Request::Depart { .. });
                    prop_assert!(departs);
                }
                _ => {}
            }
        }
    }
    #[test]
    fn nothing_is_built_with_a_part_of_a_package(scenario in scenario()) {
        let Ok(plan) = make(&scenario.request, &scenario.facts()) else { return Ok(()) };
        let is_automatic =
            matches!(&scenario.request, Request::Sync { .. } | Request::Autoinstall { .. });
        for job in &plan.jobs {
            for journal in &scenario.journals {
                // pacman waits for the commands in install scriptlets. Commands may also use the
                // files that an interrupted transaction has left.
                let concerns = match journal.progress {
                    Progress::Running => true,
                    Progress::InScriptlet | Progress::Ended => is_automatic,
                    Progress::Own => false,
                };
                let mut incomplete = journal
                    .paths
                    .iter()
                    .filter(|it| journal.is_running() || it.arrives && !it.is_done);
                prop_assert!(
                    !concerns || !incomplete.any(|path| match path.subject {
                        Subject::Source(name) => id(name) == job.module,
                        Subject::Kernel(release) => kernel(release) == job.kernel,
                    }),
                    "{} for {}:\n{plan}", job.module, job.kernel
                );
            }
        }
    }

    #[test]
    fn a_finished_run_leaves_nothing_to_do(mut scenario in scenario()) {
        let is_complete = match &scenario.request {
            Request::Sync { .. } => true,
            Request::Autoinstall { only, .. } => !only,
            _ => false,
        };
        if !is_complete {
            let (arrived, departed) = (Subjects::default(), Subjects::default());
            scenario.request = Request::Sync { arrived, departed, headers: BTreeSet::new() };
        }
        // The departure of a kernel that exists stays pending.
        let kernels = scenario.kernels.clone();
        scenario.pending.retain(|work| {
            let is_alive =
                |it: &str| RELEASES.iter().zip(&kernels).any(|(r, k)| *r == it && k.is_alive());
            !matches!(work, PendingWork::DepartedKernel(kernel) if is_alive(kernel.as_str()))
        });
        let facts = scenario.facts();
        let Ok(mut plan) = make(&scenario.request, &facts) else { return Ok(()) };
        let mut after = facts;
        let (arrived, departed) = (Subjects::default(), Subjects::default());
        let boot_unit = Request::Sync { arrived, departed, headers: BTreeSet::new() };
        let mut plans = String::new();
        // After a run has deleted the journal of a transaction, the next run does the work that had
        // to wait for the transaction.
        for _ in 0..=scenario.journals.len() + 1 {
            write!(plans, "then:\n{plan}").unwrap();
            after = carry_out(&after, &plan, &BTreeSet::new());
            plan = make(&boot_unit, &after).unwrap();
        }
        let is_idle = |step: &Step| match &step.action {
            Action::Fail { .. } => true,
            // The journal still names a kernel whose directory has been removed.
            Action::RemoveLeftovers(kernel) => !after.kernels.contains_key(kernel),
            _ => false,
        };
        prop_assert!(plan.steps().all(is_idle), "{plans}then:\n{plan}");
    }
}
