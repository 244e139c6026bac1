//! Decides whether to build, install, skip or fail a module for a kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::order::Order;
use super::{Action, Job, Note, Planner, Step, refusals};
use crate::dkms_tree::{Inputs, PendingWork, Reason};
use crate::facts::{ConfFacts, Pair, SourceLink, SourcePlace};
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId, ModuleName};

/// dkms's exit code if it cannot enter its copy of the source (dkms-behaviour 9).
const UNREADABLE: u8 = 15;

/// The conditions under which modules are built and installed.
#[derive(Debug, Clone, Copy)]
pub(super) struct BuildPolicy {
    /// Whether to repeat builds that failed with the same inputs.
    pub retry: bool,
    /// Whether to install modules after building them.
    pub install: bool,
    /// Whether to redo finished work and to ignore missing dependencies.
    pub force: bool,
    /// Whether the modules were requested by name.
    ///
    /// If so, a module with a missing dependency fails instead of being skipped, and a note reports
    /// each module that is up to date.
    pub strict: bool,
}

impl BuildPolicy {
    /// The policy for transactions and the boot unit.
    pub(super) const AUTOMATIC: Self =
        Self { retry: false, install: true, force: false, strict: false };
}

/// The modules to build for each kernel, with the reasons. A module without reasons is built only
/// if it is not up to date.
pub(super) type WantedBuilds = BTreeMap<KernelRelease, BTreeMap<ModuleId, Vec<Reason>>>;

impl Planner<'_> {
    /// Plans the builds and installations of the modules in `wanted`, dependencies first.
    pub(super) fn plan_builds(&mut self, wanted: &WantedBuilds, policy: BuildPolicy) {
        let facts = self.facts;
        for (kernel, modules) in wanted {
            let order = Order::of(facts, kernel, modules.keys());
            let (forced, circular) = match policy.force {
                true => (order.circular, Vec::new()),
                false => (Vec::new(), order.circular),
            };
            for id in circular {
                if self.is_built_in_a_cycle(&id, kernel, policy) {
                    self.install_if_needed(&id, kernel, modules[&id].clone(), policy);
                    continue;
                }
                let failure = Failure::new(13, "circular BUILD_DEPENDS");
                let hint = "remove the cycle from the dkms.conf files";
                self.fail(&id, kernel, failure.with_hint(hint));
            }
            for id in order.sorted.into_iter().chain(forced) {
                match modules.get(&id) {
                    Some(why) => self.plan_module(&id, kernel, why.clone(), policy),
                    None => self.plan_dependent(&id, kernel, policy),
                }
            }
        }
    }

    /// Plans to rebuild an installed module if one of its dependencies changes. The module itself
    /// is not among the wanted builds.
    fn plan_dependent(&mut self, id: &ModuleId, kernel: &KernelRelease, policy: BuildPolicy) {
        let Some(pair) = self.facts.pair(id, kernel) else { return };
        let Some(inputs) = self.inputs(pair, kernel) else { return };
        if self.gone.contains(id) {
            return self.expect_fingerprint(id, kernel, pair, &inputs);
        }
        let dependency_changes = inputs
            .depends
            .keys()
            .any(|name| self.building.contains(&(name.clone(), kernel.clone())));
        let recorded = pair.built.as_ref().and_then(|built| built.record.as_ref());
        let differs = recorded.is_some_and(|record| record.inputs.depends != inputs.depends);
        if dependency_changes && differs {
            self.plan_module(id, kernel, Vec::new(), policy);
        } else {
            self.expect_fingerprint(id, kernel, pair, &inputs);
        }
    }

    /// Records the fingerprint of a module that is not rebuilt. The plan needs it for modules that
    /// depend on this one.
    pub(super) fn expect_fingerprint(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        pair: &Pair,
        inputs: &Inputs,
    ) {
        let recorded = pair.built.as_ref().and_then(|built| built.record.as_ref());
        let inputs = recorded.map_or(inputs, |record| &record.inputs);
        self.fingerprints.insert((id.name.clone(), kernel.clone()), inputs.fingerprint());
    }

    /// Returns the inputs of a module for a kernel, with the planned fingerprints of its
    /// dependencies.
    ///
    /// Returns `None` if the inputs were not read successfully.
    pub(super) fn inputs(&self, pair: &Pair, kernel: &KernelRelease) -> Option<Inputs> {
        let mut inputs = pair.inputs.clone()?;
        if let Some(Ok(conf)) = &pair.conf {
            for name in &conf.depends {
                let planned = self.fingerprints.get(&(name.clone(), kernel.clone()));
                if let Some(fingerprint) = planned {
                    inputs.depends.insert(name.clone(), *fingerprint);
                }
            }
        }
        Some(inputs)
    }

    fn plan_module(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        mut why: Vec<Reason>,
        policy: BuildPolicy,
    ) {
        let facts = self.facts;
        if self.leaves_to_pacman(id, kernel, policy) {
            return;
        }
        let Some(pair) = facts.pair(id, kernel) else { return };
        if !facts.has_headers(kernel) {
            // An existing build can be installed without headers.
            let is_repair = |why: &Reason| matches!(why, Reason::Interrupted | Reason::NotInPlace);
            if pair.built.is_some() && why.iter().any(is_repair) {
                return self.install_unless_parked(id, kernel, why);
            }
            return self.note(refusals::headers_note(facts, kernel));
        }
        let conf = match &pair.conf {
            Some(Ok(conf)) => conf,
            Some(Err(failure)) => return self.fail(id, kernel, failure.clone()),
            None => {
                let failure = Failure::new(4, "dkms.conf was not read");
                return self.fail(id, kernel, failure);
            }
        };
        if let Some(rule) = &conf.excluded {
            return self.note(Note::Excluded {
                module: id.clone(),
                kernel: kernel.clone(),
                why: rule.clone(),
            });
        }
        if let Some(missing) = self.missing_dependency(conf, kernel)
            && !policy.force
        {
            if policy.strict && self.is_up_to_date(pair, kernel, policy) {
                return self.install_if_needed(id, kernel, why, policy);
            }
            return self.lacks_dependency(id, kernel, missing, policy);
        }
        let Some(inputs) = self.inputs(pair, kernel) else {
            let message = "cannot read the source or the kernel headers";
            return self.fail(id, kernel, Failure::new(UNREADABLE, message));
        };
        let to_build = reasons_to_build(pair, &inputs, policy);
        if to_build.is_empty() {
            self.expect_fingerprint(id, kernel, pair, &inputs);
            return self.install_if_needed(id, kernel, why, policy);
        }
        // `--force` compiles the module even if the cache contains a build.
        let cached = !policy.force && facts.is_cached(id, &inputs);
        if let Some(failure) = &pair.failure
            && !cached
            && failure.fingerprint == inputs.fingerprint()
            && !policy.retry
            && !self.is_reinstalled(id, kernel)
        {
            if pair.built.is_some() {
                self.expect_fingerprint(id, kernel, pair, &inputs);
            }
            return self.note(Note::KnownFailure {
                module: id.clone(),
                kernel: kernel.clone(),
                what: failure.what.clone(),
                log: failure.log.clone(),
                stays: facts.installed(&id.name, kernel).cloned(),
            });
        }
        let work = PendingWork::install(id, kernel);
        if self.is_used_up(&work, inputs.fingerprint()) && !self.is_reinstalled(id, kernel) {
            self.parked.insert(work);
            if pair.built.is_some() {
                self.expect_fingerprint(id, kernel, pair, &inputs);
            }
            return;
        }
        if let Some(failure) = refusals::headers_of_another(facts, kernel) {
            return self.fail(id, kernel, failure);
        }
        why.extend(to_build);
        if cached {
            why.retain(|reason| *reason != Reason::NotBuilt);
            why.push(Reason::Cached);
        }
        self.job(id, kernel, conf, inputs, why, policy.install);
    }

    /// Returns true if the transaction reinstalled the source of this version or the kernel's
    /// headers. This counts as a request to retry a failed build.
    fn is_reinstalled(&self, id: &ModuleId, kernel: &KernelRelease) -> bool {
        let (sources, headers) = &self.reinstalled;
        let module = self.facts.modules.get(id);
        headers.contains(kernel)
            || module.is_some_and(|m| {
                m.source == SourcePlace::Present && sources.contains(&m.source_dir)
            })
    }

    /// Returns true if a module has been built with its current inputs. Ignores missing
    /// dependencies.
    fn is_up_to_date(&self, pair: &Pair, kernel: &KernelRelease, policy: BuildPolicy) -> bool {
        let recorded = pair.built.as_ref().and_then(|built| built.record.as_ref());
        self.inputs(pair, kernel).is_some_and(|mut inputs| {
            for (name, fingerprint) in recorded.iter().flat_map(|record| &record.inputs.depends) {
                inputs.depends.entry(name.clone()).or_insert(*fingerprint);
            }
            reasons_to_build(pair, &inputs, policy).is_empty()
        })
    }

    /// Returns true if a module in a dependency cycle is up to date, because it was built with
    /// `--force`. If the module is not installed, returns true only for a command, which may
    /// install it.
    fn is_built_in_a_cycle(
        &self,
        id: &ModuleId,
        kernel: &KernelRelease,
        policy: BuildPolicy,
    ) -> bool {
        let Some(pair) = self.facts.pair(id, kernel) else { return false };
        let Some(built) = &pair.built else { return false };
        let Some(mut inputs) = self.inputs(pair, kernel) else { return false };
        if let Some(record) = &built.record {
            // In a cycle, each build would change the inputs of the next one.
            inputs.depends.clone_from(&record.inputs.depends);
        }
        (policy.strict || built.installed) && reasons_to_build(pair, &inputs, policy).is_empty()
    }

    /// Plans to build a module, and to install it if `install` is true.
    fn job(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        conf: &ConfFacts,
        inputs: Inputs,
        why: Vec<Reason>,
        install: bool,
    ) {
        if self.facts.modules.get(id).is_some_and(|m| m.link == SourceLink::Mendable) {
            self.mend_link(id);
        }
        self.register(id);
        let depends = conf.depends.iter();
        let after = depends.filter(|name| self.will_be_there(name, kernel)).cloned().collect();
        let key = (id.name.clone(), kernel.clone());
        self.fingerprints.insert(key.clone(), inputs.fingerprint());
        self.building.insert(key);
        let install = install.then(|| self.installation(id, kernel, Vec::new()));
        let (module, kernel) = (id.clone(), kernel.clone());
        let action = Action::Build { module: module.clone(), kernel: kernel.clone() };
        let build = Step { action, why };
        let depends = inputs.depends;
        self.plan.jobs.push(Job {
            module,
            kernel,
            after,
            with: BTreeSet::new(),
            depends,
            build,
            install,
        });
    }

    /// Plans to install an existing build, unless it is already installed completely and with the
    /// current compression and signing key.
    fn install_if_needed(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        mut why: Vec<Reason>,
        policy: BuildPolicy,
    ) {
        let facts = self.facts;
        if let Some(built) = facts.built(id, kernel).filter(|_| policy.install) {
            if let Some(why) = built.declined.as_ref().filter(|_| !policy.force) {
                self.will_have.insert((id.clone(), kernel.clone()));
                let (module, kernel, why) = (id.clone(), kernel.clone(), why.clone());
                return self.note(Note::Declined { module, kernel, why });
            }
            if built.other_compression {
                why.push(Reason::Compression);
            }
            if built.other_key {
                why.push(Reason::Signing);
            }
            if !built.installed {
                why.push(Reason::NotInstalled);
            } else if !built.in_place && !why.contains(&Reason::NotInPlace) {
                why.push(Reason::NotInPlace);
            }
            if built.installed && facts.index_outdated(kernel) {
                self.touched.insert(kernel.clone());
            }
            let only_requested = why.iter().all(|reason| *reason == Reason::Requested);
            if !only_requested || policy.force {
                return self.install_unless_parked(id, kernel, why);
            }
        }
        self.will_have.insert((id.clone(), kernel.clone()));
        if policy.strict {
            let state = if policy.install { "installed" } else { "built" };
            self.note(Note::Already { module: id.clone(), kernel: kernel.clone(), state });
        }
    }

    /// Plans to install an existing build, unless its installation is parked.
    fn install_unless_parked(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        let work = PendingWork::install(id, kernel);
        let is_used_up = self.is_used_up(&work, self.facts.built_inputs(id, kernel));
        if !is_used_up || self.is_reinstalled(id, kernel) {
            self.install(id, kernel, why);
        } else if self.facts.built(id, kernel).is_some_and(|it| it.installed && it.in_place) {
            // The module is installed and in place: an earlier run was interrupted only after
            // installing it.
            self.will_have.insert((id.clone(), kernel.clone()));
        } else {
            self.parked.insert(work);
        }
    }

    /// Plans to install an existing build.
    pub(super) fn install(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        let step = self.installation(id, kernel, why);
        self.plan.before.push(step);
    }

    /// Returns the step that installs an existing build or a planned one.
    fn installation(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) -> Step {
        let replaces = self.facts.installed(&id.name, kernel).filter(|old| *old != id).cloned();
        self.touched.insert(kernel.clone());
        self.will_have.insert((id.clone(), kernel.clone()));
        let (module, kernel) = (id.clone(), kernel.clone());
        Step { action: Action::Install { module, kernel, replaces }, why }
    }

    pub(super) fn fail(&mut self, id: &ModuleId, kernel: &KernelRelease, failure: Failure) {
        let (module, kernel) = (id.clone(), Some(kernel.clone()));
        self.before_builds(Action::Fail { module, kernel, failure }, Vec::new());
    }

    /// Returns true if the plan builds or installs a version of the module, or finds one up to
    /// date.
    fn will_be_there(&self, name: &ModuleName, kernel: &KernelRelease) -> bool {
        self.building.contains(&(name.clone(), kernel.clone()))
            || self.will_have.iter().any(|(id, k)| id.name == *name && k == kernel)
    }

    /// Returns the first dependency that is neither installed nor planned, or `None` if none is
    /// missing.
    fn missing_dependency(&self, conf: &ConfFacts, kernel: &KernelRelease) -> Option<ModuleName> {
        let facts = self.facts;
        let satisfied = |name: &ModuleName| {
            self.will_be_there(name, kernel)
                || facts.installed(name, kernel).is_some()
                || facts.is_declined(name, kernel)
                // A dependency that is excluded for this kernel is never built, so it does not
                // count as missing.
                || facts
                    .versions(name)
                    .any(|(id, _)| facts.conf(id, kernel).is_some_and(|c| c.excluded.is_some()))
        };
        conf.depends.iter().find(|name| !satisfied(name)).cloned()
    }

    fn lacks_dependency(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        needs: ModuleName,
        policy: BuildPolicy,
    ) {
        let facts = self.facts;
        let known = facts.versions(&needs).next().is_some();
        let failed_before = facts.versions(&needs).any(|(other, _)| {
            facts.pair(other, kernel).is_some_and(|pair| pair.failure.is_some())
                || self.parked.contains(&PendingWork::install(other, kernel))
        });
        if policy.strict || (known && (policy.retry || !failed_before)) {
            let message = format!("depends on {needs}, which is not installed");
            let hint = format!("run: dkms install {needs}/VERSION -k {kernel}");
            self.fail(id, kernel, Failure::new(13, message).with_hint(hint));
        } else {
            self.note(Note::Deferred { module: id.clone(), kernel: kernel.clone(), needs });
        }
    }
}

fn reasons_to_build(pair: &Pair, inputs: &Inputs, policy: BuildPolicy) -> Vec<Reason> {
    match &pair.built {
        None => vec![Reason::NotBuilt],
        Some(_) if policy.force && !policy.install => vec![Reason::Requested],
        Some(built) if built.damaged => vec![Reason::Damaged],
        Some(built) => match &built.record {
            Some(record) => inputs.changed_since(&record.inputs),
            None if built.outdated => vec![Reason::OlderThanInputs],
            None => Vec::new(),
        },
    }
}
