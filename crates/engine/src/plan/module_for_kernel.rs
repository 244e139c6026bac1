//! Planning for one module and one kernel at a time: whether to build, to place, or to fail.

use std::collections::BTreeMap;

use super::order::Order;
use super::{Action, Job, Note, Planner, Step, refusals};
use crate::dkms_tree::{CacheKey, Inputs, Reason};
use crate::facts::{ConfFacts, Pair, SourceLink};
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId, ModuleName};

/// dkms's exit code where it cannot enter its copy of a source (dkms-behaviour 9).
const UNREADABLE: u8 = 15;

/// How eagerly pairs are brought up to date.
#[derive(Debug, Clone, Copy)]
pub(super) struct BuildPolicy {
    /// Try again what failed with the same inputs.
    pub retry: bool,
    /// Install after building.
    pub install: bool,
    /// Build even what is up to date, and without its dependencies.
    pub force: bool,
    /// Asked for by name: a dependency that dkms does not know is a failure rather than a reason
    /// to wait, and "nothing to do" is worth a word.
    pub strict: bool,
}

impl BuildPolicy {
    /// What a transaction or the boot unit wants.
    pub(super) const AUTOMATIC: Self =
        Self { retry: false, install: true, force: false, strict: false };
}

/// Which modules are wanted for which kernels, and why; nothing in the reasons means "if needed".
pub(super) type WantedBuilds = BTreeMap<KernelRelease, BTreeMap<ModuleId, Vec<Reason>>>;

impl Planner<'_> {
    /// Plans builds and installations so that each module follows those it builds upon.
    pub(super) fn bring(&mut self, wanted: &WantedBuilds, will: BuildPolicy) {
        let facts = self.facts;
        for (kernel, modules) in wanted {
            let order = Order::of(facts, kernel, modules.keys());
            for id in order.circular {
                let message = format!(
                    "BUILD_DEPENDS of {id} leads back to itself: remove the circle from the \
                     dkms.conf files"
                );
                self.fail(&id, kernel, Failure::new(13, message));
            }
            for id in order.sorted {
                match modules.get(&id) {
                    Some(why) => self.bring_one(&id, kernel, why.clone(), will),
                    None => self.follow(&id, kernel, will),
                }
            }
        }
    }

    /// Plans for a module that nobody asked for, but that may build upon one that changes.
    fn follow(&mut self, id: &ModuleId, kernel: &KernelRelease, will: BuildPolicy) {
        let Some(pair) = self.facts.pair(id, kernel) else { return };
        let Some(inputs) = self.inputs(pair, kernel) else { return };
        let built_upon_change = inputs
            .depends
            .keys()
            .any(|name| self.building.contains(&(name.clone(), kernel.clone())));
        let recorded = pair.built.as_ref().and_then(|built| built.record.as_ref());
        let differs = recorded.is_some_and(|record| record.inputs.depends != inputs.depends);
        if built_upon_change && differs {
            self.bring_one(id, kernel, Vec::new(), will);
        } else {
            self.expect_fingerprint(id, kernel, pair, &inputs);
        }
    }

    /// Notes the fingerprint of a module that stays as it is.
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

    /// The inputs of a pair, with the fingerprints of what it builds upon as planned so far.
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

    fn bring_one(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        mut why: Vec<Reason>,
        will: BuildPolicy,
    ) {
        let facts = self.facts;
        let Some(pair) = facts.pair(id, kernel) else { return };
        if !facts.has_headers(kernel) {
            // What is built needs no headers to be placed.
            if pair.built.is_some() && why.contains(&Reason::Interrupted) {
                return self.install(id, kernel, why);
            }
            return self.note(refusals::headers_note(facts, kernel));
        }
        let conf = match &pair.conf {
            Some(Ok(conf)) => conf,
            Some(Err(failure)) => return self.fail(id, kernel, failure.clone()),
            None => {
                let failure = Failure::new(4, "its dkms.conf was not read");
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
            && !will.force
        {
            return self.lacks(id, kernel, missing, will);
        }
        let Some(inputs) = self.inputs(pair, kernel) else {
            let message = "cannot read its source or the kernel's headers";
            return self.fail(id, kernel, Failure::new(UNREADABLE, message));
        };
        let to_build = reasons_to_build(pair, &inputs, will);
        if to_build.is_empty() {
            self.expect_fingerprint(id, kernel, pair, &inputs);
            return self.install_if_needed(id, kernel, why, will);
        }
        // Who insists wants it compiled.
        let cached = !will.force && facts.cached.contains(&CacheKey::of(id, &facts.arch, &inputs));
        if let Some(failure) = &pair.failure
            && !cached
            && failure.fingerprint == inputs.fingerprint()
            && !will.retry
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
        why.extend(to_build);
        if cached {
            why.push(Reason::Cached);
        }
        self.job(id, kernel, conf, inputs, why, will.install);
    }

    /// Plans a build, with its installation if that is wanted.
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
        self.plan.jobs.push(Job { module, kernel, after, depends, build, install });
    }

    /// Plans to place what is built, if it is not in its place.
    fn install_if_needed(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        mut why: Vec<Reason>,
        will: BuildPolicy,
    ) {
        if let Some(built) = self.facts.built(id, kernel).filter(|_| will.install) {
            if built.other_compression {
                why.push(Reason::Compression);
            }
            if built.other_key {
                why.push(Reason::Signing);
            }
            if !built.installed {
                why.push(Reason::NotInstalled);
            } else if !built.in_place {
                why.push(Reason::Misplaced);
            }
            let only_asked = why.iter().all(|reason| *reason == Reason::Requested);
            if !only_asked || will.force {
                return self.install(id, kernel, why);
            }
        }
        self.will_have.insert((id.clone(), kernel.clone()));
        if will.strict {
            let state = if will.install { "installed" } else { "built" };
            self.note(Note::Already { module: id.clone(), kernel: kernel.clone(), state });
        }
    }

    /// Plans to place what is built.
    pub(super) fn install(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        let step = self.installation(id, kernel, why);
        self.plan.before.push(step);
    }

    /// The step that places what is, or will be, built.
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

    /// Returns true if this plan builds a version of a module for a kernel, or has one installed in
    /// the end.
    fn will_be_there(&self, name: &ModuleName, kernel: &KernelRelease) -> bool {
        self.building.contains(&(name.clone(), kernel.clone()))
            || self.will_have.iter().any(|(id, k)| id.name == *name && k == kernel)
    }

    /// The first module that this one builds upon and that is neither there nor coming.
    fn missing_dependency(&self, conf: &ConfFacts, kernel: &KernelRelease) -> Option<ModuleName> {
        let facts = self.facts;
        let satisfied = |name: &ModuleName| {
            self.will_be_there(name, kernel)
                || facts.installed(name, kernel).is_some()
                // What is not meant for this kernel is not waited for.
                || facts
                    .versions(name)
                    .any(|(id, _)| facts.conf(id, kernel).is_some_and(|c| c.excluded.is_some()))
        };
        conf.depends.iter().find(|name| !satisfied(name)).cloned()
    }

    fn lacks(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        needs: ModuleName,
        will: BuildPolicy,
    ) {
        let facts = self.facts;
        let known = facts.versions(&needs).next().is_some();
        let failed_before = facts
            .versions(&needs)
            .any(|(other, _)| facts.pair(other, kernel).is_some_and(|pair| pair.failure.is_some()));
        if will.strict || (known && (will.retry || !failed_before)) {
            let message = format!(
                "it builds upon {needs} (BUILD_DEPENDS), which is not installed for {kernel}: \
                 dkms install {needs}/VERSION -k {kernel}"
            );
            self.fail(id, kernel, Failure::new(13, message));
        } else {
            self.note(Note::Deferred { module: id.clone(), kernel: kernel.clone(), needs });
        }
    }
}

fn reasons_to_build(pair: &Pair, inputs: &Inputs, will: BuildPolicy) -> Vec<Reason> {
    match &pair.built {
        None => vec![Reason::NotBuilt],
        Some(_) if will.force && !will.install => vec![Reason::Requested],
        Some(built) => match &built.record {
            Some(record) => inputs.changed_since(&record.inputs),
            None if built.outdated => vec![Reason::OlderThanInputs],
            None => Vec::new(),
        },
    }
}
