//! Planning what is to be built and installed.

use std::collections::{BTreeMap, BTreeSet};

use super::order::{Order, needed_by};
use super::{Action, Note, Planner, Refusal, commands};
use crate::conf::Autoinstall;
use crate::debts::Debt;
use crate::facts::{ConfFacts, Facts, Pair, SourceLink, SourcePlace};
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::record::{Inputs, Reason};

/// How eagerly pairs are brought up to date.
#[derive(Debug, Clone, Copy)]
pub(super) struct Will {
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

impl Will {
    /// What a transaction or the boot unit wants.
    const AUTOMATIC: Self = Self { retry: false, install: true, force: false, strict: false };
}

/// Which modules are wanted for which kernels, and why; nothing in the reasons means "if needed".
pub(super) type Wanted = BTreeMap<KernelRelease, BTreeMap<ModuleId, Vec<Reason>>>;

/// What a transaction touched, together with what is owed from earlier ones.
pub(super) struct Touched {
    /// Directories of the source tree.
    pub sources: BTreeSet<String>,
    /// Kernel releases.
    pub kernels: BTreeSet<KernelRelease>,
    /// Modules among the sources that are not there any more.
    pub gone: BTreeSet<ModuleId>,
}

impl Planner<'_> {
    /// Brings the machine in line with what a transaction touched, and pays what is owed.
    pub(super) fn sync(&mut self, sources: &BTreeSet<String>, kernels: &BTreeSet<KernelRelease>) {
        let touched = self.touched(sources, kernels);
        self.mend_links(&touched.gone);
        self.take_over();
        let mut wanted = self.arrived(&touched);
        self.add_begun(&touched.gone, &mut wanted);
        self.bring(&wanted, Will::AUTOMATIC);
        self.leave(&touched);
        self.settle(&touched);
    }

    /// `dkms autoinstall`: willing modules that dkms knows, and what is owed.
    pub(super) fn autoinstall(&mut self, kernels: &[KernelRelease]) -> Result<(), Refusal> {
        let facts = self.facts;
        let touched = self.touched(&BTreeSet::new(), &BTreeSet::new());
        let mut wanted = self.arrived(&touched);
        for kernel in kernels {
            let willing = willing_modules(facts, kernel);
            let installed = |id: &ModuleId| facts.built(id, kernel).is_some_and(|b| b.installed);
            if !facts.has_headers(kernel) {
                if willing.iter().any(|id| !installed(id)) {
                    if facts.debts.is_empty() {
                        return Err(commands::no_headers(facts, kernel));
                    }
                    // What is owed to other kernels is paid all the same.
                    self.note(commands::headers_note(facts, kernel));
                }
                continue;
            }
            let modules = wanted.entry(kernel.clone()).or_default();
            for id in willing {
                modules.entry(id.clone()).or_default();
            }
        }
        self.add_begun(&touched.gone, &mut wanted);
        self.mend_links(&touched.gone);
        self.take_over();
        self.bring(&wanted, Will { retry: true, ..Will::AUTOMATIC });
        self.leave(&touched);
        self.settle(&touched);
        Ok(())
    }

    fn touched(&self, sources: &BTreeSet<String>, kernels: &BTreeSet<KernelRelease>) -> Touched {
        let (mut sources, mut kernels) = (sources.clone(), kernels.clone());
        for debt in &self.facts.debts {
            match debt {
                Debt::Source(dir) => drop(sources.insert(dir.clone())),
                Debt::Kernel(kernel) => drop(kernels.insert(kernel.clone())),
                Debt::Transaction { sources: more, kernels: other } => {
                    sources.extend(more.iter().cloned());
                    kernels.extend(other.iter().cloned());
                }
                _ => {}
            }
        }
        let gone = self.gone_modules(&sources);
        Touched { sources, kernels, gone }
    }

    /// Adds the installations that were begun and not finished.
    fn add_begun(&self, gone: &BTreeSet<ModuleId>, wanted: &mut Wanted) {
        let facts = self.facts;
        for debt in &facts.debts {
            let Debt::Install { module, kernel } = debt else { continue };
            let known = facts.modules.get(module).is_some_and(|m| m.source != SourcePlace::Missing);
            if known && facts.is_alive(kernel) && !gone.contains(module) {
                let modules = wanted.entry(kernel.clone()).or_default();
                modules.entry(module.clone()).or_default().push(Reason::Interrupted);
            }
        }
    }

    /// Takes over what dkms built for kernels that are there, without compiling.
    fn take_over(&mut self) {
        let facts = self.facts;
        let unrecorded = |pair: &Pair| {
            pair.inputs.is_some()
                && pair.built.as_ref().is_some_and(|b| b.record.is_none() && !b.outdated)
        };
        for kernel in facts.kernels.keys() {
            let adoptable = facts.modules.iter().filter(|(id, module)| {
                module.is_registered() && facts.pair(id, kernel).is_some_and(unrecorded)
            });
            let adoptable: BTreeSet<&ModuleId> = adoptable.map(|(id, _)| id).collect();
            if adoptable.is_empty() {
                continue;
            }
            for id in Order::of(facts, kernel, adoptable.iter().copied()).sorted {
                let Some(pair) = facts.pair(&id, kernel) else { continue };
                let Some(inputs) = self.inputs(pair, kernel) else { continue };
                self.expect_fingerprint(&id, kernel, pair, &inputs);
                if adoptable.contains(&id) {
                    let (module, kernel) = (id, kernel.clone());
                    let action = Action::Adopt { module, kernel, depends: inputs.depends };
                    self.step(action, Vec::new());
                }
            }
        }
    }

    /// Changed sources for all kernels, all sources for changed kernels.
    fn arrived(&mut self, touched: &Touched) -> Wanted {
        let facts = self.facts;
        let mut wanted = Wanted::new();
        let newest = facts.newest_sources(&touched.gone);
        // A version that went away asks for the one that is there.
        let source_touched = |id: &ModuleId| {
            facts.versions(&id.name).any(|(_, m)| touched.sources.contains(&m.source_dir))
        };
        for (kernel, about) in facts.kernels.iter().filter(|(_, about)| about.kernel.alive) {
            let kernel_touched = touched.kernels.contains(kernel);
            let mut modules: BTreeSet<&ModuleId> =
                newest.iter().copied().filter(|id| kernel_touched || source_touched(id)).collect();
            if modules.is_empty() {
                continue;
            }
            if !about.owned {
                self.note(Note::Copy(kernel.clone()));
                continue;
            }
            if !about.has_headers() {
                // An object that is there needs no headers.
                let missing =
                    |id: &&ModuleId| !facts.built(id, kernel).is_some_and(|b| b.installed);
                if modules.iter().any(missing) {
                    self.note(commands::headers_note(facts, kernel));
                }
                continue;
            }
            self.add_waiting(&mut modules, kernel, &newest);
            for id in modules {
                if facts.conf(id, kernel).is_some_and(|c| c.autoinstall == Autoinstall::No) {
                    self.note(Note::NotAutomatic(id.clone()));
                    continue;
                }
                let modules = wanted.entry(kernel.clone()).or_default();
                modules.entry(id.clone()).or_default();
                for needed in needed_by(facts, id, kernel, &newest) {
                    modules.entry(needed.clone()).or_default();
                }
            }
        }
        wanted
    }

    /// Adds the modules that are not installed and build upon one that is wanted: they may have
    /// waited for it.
    fn add_waiting<'a>(
        &self,
        modules: &mut BTreeSet<&'a ModuleId>,
        kernel: &KernelRelease,
        newest: &BTreeSet<&'a ModuleId>,
    ) {
        let facts = self.facts;
        loop {
            let names: BTreeSet<&ModuleName> = modules.iter().map(|id| &id.name).collect();
            let waits = |id: &&ModuleId| {
                !modules.contains(*id)
                    && facts.installed(&id.name, kernel).is_none()
                    && facts
                        .conf(id, kernel)
                        .is_some_and(|c| c.depends.iter().any(|d| names.contains(d)))
            };
            let waiting: Vec<&ModuleId> = newest.iter().copied().filter(waits).collect();
            if waiting.is_empty() {
                return;
            }
            modules.extend(waiting);
        }
    }

    /// Plans builds and installations so that each module follows those it builds upon.
    pub(super) fn bring(&mut self, wanted: &Wanted, will: Will) {
        let facts = self.facts;
        for (kernel, modules) in wanted {
            let order = Order::of(facts, kernel, modules.keys());
            for id in order.circular {
                let message = format!(
                    "BUILD_DEPENDS of {id} leads back to itself: remove the circle from the \
                     dkms.conf files"
                );
                self.fail(&id, kernel, message, 13);
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
    fn follow(&mut self, id: &ModuleId, kernel: &KernelRelease, will: Will) {
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
    fn expect_fingerprint(
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
    fn inputs(&self, pair: &Pair, kernel: &KernelRelease) -> Option<Inputs> {
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
        will: Will,
    ) {
        let facts = self.facts;
        let Some(pair) = facts.pair(id, kernel) else { return };
        if !facts.has_headers(kernel) {
            // What is built needs no headers to be placed.
            if pair.built.is_some() && why.contains(&Reason::Interrupted) {
                return self.install(id, kernel, why);
            }
            return self.note(commands::headers_note(facts, kernel));
        }
        let conf = match &pair.conf {
            Some(Ok(conf)) => conf,
            Some(Err(problem)) => {
                return self.fail(id, kernel, problem.message.clone(), problem.code);
            }
            None => return self.fail(id, kernel, "its dkms.conf was not read".into(), 4),
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
            let message = "its source or the kernel's headers cannot be read".into();
            return self.fail(id, kernel, message, 1);
        };
        let to_build = reasons_to_build(pair, &inputs, will);
        if to_build.is_empty() {
            self.expect_fingerprint(id, kernel, pair, &inputs);
            return self.install_if_needed(id, kernel, why, will);
        }
        if let Some(failure) = &pair.failure
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
        self.build(id, kernel, conf, inputs, why);
        if will.install {
            self.install(id, kernel, Vec::new());
        }
    }

    fn build(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        conf: &ConfFacts,
        inputs: Inputs,
        why: Vec<Reason>,
    ) {
        if self.facts.modules.get(id).is_some_and(|m| m.link == SourceLink::Mendable) {
            self.mend_link(id);
        }
        self.register(id);
        let coming =
            |name: &&ModuleName| self.building.contains(&((*name).clone(), kernel.clone()));
        let after = conf.depends.iter().filter(coming).cloned().collect();
        let key = (id.name.clone(), kernel.clone());
        self.fingerprints.insert(key.clone(), inputs.fingerprint());
        self.building.insert(key);
        let (module, kernel) = (id.clone(), kernel.clone());
        self.step(Action::Build { module, kernel, after, depends: inputs.depends }, why);
    }

    /// Plans to place what is built, if it is not in its place.
    fn install_if_needed(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        mut why: Vec<Reason>,
        will: Will,
    ) {
        if let Some(built) = self.facts.built(id, kernel).filter(|_| will.install) {
            if built.other_compression {
                why.push(Reason::Compression);
            }
            if !built.installed {
                why.push(Reason::NotInstalled);
            } else if !built.in_place {
                why.push(Reason::Misplaced);
            }
            let only_asked = why.iter().all(|reason| *reason == Reason::Asked);
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

    /// Plans to place what is, or will be, built.
    pub(super) fn install(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        let replaces = self.facts.installed(&id.name, kernel).filter(|old| *old != id).cloned();
        self.touched.insert(kernel.clone());
        self.will_have.insert((id.clone(), kernel.clone()));
        let (module, kernel) = (id.clone(), kernel.clone());
        self.step(Action::Install { module, kernel, replaces }, why);
    }

    pub(super) fn fail(
        &mut self,
        id: &ModuleId,
        kernel: &KernelRelease,
        message: String,
        code: u8,
    ) {
        let (module, kernel) = (id.clone(), Some(kernel.clone()));
        self.step(Action::Fail { module, kernel, message, code }, Vec::new());
    }

    /// The first module that this one builds upon and that is neither there nor coming.
    fn missing_dependency(&self, conf: &ConfFacts, kernel: &KernelRelease) -> Option<ModuleName> {
        let facts = self.facts;
        let satisfied = |name: &ModuleName| {
            self.building.contains(&(name.clone(), kernel.clone()))
                || facts.installed(name, kernel).is_some()
                || self.will_have.iter().any(|(id, k)| id.name == *name && k == kernel)
                // What is not meant for this kernel is not waited for.
                || facts
                    .versions(name)
                    .any(|(id, _)| facts.conf(id, kernel).is_some_and(|c| c.excluded.is_some()))
        };
        conf.depends.iter().find(|name| !satisfied(name)).cloned()
    }

    fn lacks(&mut self, id: &ModuleId, kernel: &KernelRelease, needs: ModuleName, will: Will) {
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
            self.fail(id, kernel, message, 13);
        } else {
            self.note(Note::Deferred { module: id.clone(), kernel: kernel.clone(), needs });
        }
    }
}

fn reasons_to_build(pair: &Pair, inputs: &Inputs, will: Will) -> Vec<Reason> {
    match &pair.built {
        None => vec![Reason::NotBuilt],
        Some(_) if will.force && !will.install => vec![Reason::Asked],
        Some(built) => match &built.record {
            Some(record) => inputs.changed_since(&record.inputs),
            None if built.outdated => vec![Reason::OlderThanInputs],
            None => Vec::new(),
        },
    }
}

/// The modules that `dkms autoinstall` wants for a kernel.
fn willing_modules<'a>(facts: &'a Facts, kernel: &KernelRelease) -> Vec<&'a ModuleId> {
    let willing = |id: &&ModuleId| {
        match facts.pair(id, kernel).and_then(|pair| pair.conf.as_ref()) {
            Some(Ok(conf)) => conf.autoinstall == Autoinstall::Yes,
            // A conf that cannot be read may well be a willing one: let it fail visibly.
            Some(Err(_)) => true,
            None => false,
        }
    };
    facts.newest_registered().into_iter().filter(willing).collect()
}
