//! Planning what is to be built and installed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Note, Planner, Refusal};
use crate::conf::Autoinstall;
use crate::debts::Debt;
use crate::facts::{ConfFacts, Facts, ModuleFacts, Pair, SourceLink, SourcePlace};
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
    /// A dependency that dkms does not know is a failure rather than a reason to wait.
    pub strict: bool,
}

impl Will {
    /// What a transaction or the boot unit wants.
    const AUTOMATIC: Self = Self { retry: false, install: true, force: false, strict: false };
}

/// Which modules are wanted for which kernels, and why; nothing in the reasons means "if needed".
pub(super) type Wanted = BTreeMap<KernelRelease, BTreeMap<ModuleId, Vec<Reason>>>;

impl Planner<'_> {
    /// Brings the machine in line with what a transaction touched, and pays what is owed.
    pub(super) fn sync(&mut self, sources: &BTreeSet<String>, kernels: &BTreeSet<KernelRelease>) {
        let facts = self.facts;
        let mut sources = sources.clone();
        let mut kernels = kernels.clone();
        for debt in &facts.debts {
            match debt {
                Debt::Source(dir) => drop(sources.insert(dir.clone())),
                Debt::Kernel(kernel) => drop(kernels.insert(kernel.clone())),
                _ => {}
            }
        }
        self.take_over();
        let wanted = self.arrived(&sources, &kernels);
        self.bring(&wanted, Will::AUTOMATIC);
        self.leave(&sources, &kernels);
        self.settle(&sources, &kernels);
    }

    /// `dkms autoinstall`: willing modules that dkms knows, and what is owed.
    pub(super) fn autoinstall(&mut self, kernels: &[KernelRelease]) -> Result<(), Refusal> {
        let facts = self.facts;
        let mut wanted = self.owed_pairs();
        let newest = newest_registered(facts);
        for kernel in kernels {
            for id in &newest {
                let conf = facts.pair(id, kernel).and_then(|pair| pair.conf.as_ref());
                let willing = match conf {
                    Some(Ok(conf)) => conf.autoinstall == Autoinstall::Yes,
                    // A conf that cannot be read may well be a willing one: let it fail visibly.
                    Some(Err(_)) => true,
                    None => false,
                };
                if willing {
                    wanted.entry(kernel.clone()).or_default().entry((*id).clone()).or_default();
                }
            }
            let work = wanted.get(kernel).is_some_and(|modules| {
                modules.keys().any(|id| !facts.built(id, kernel).is_some_and(|b| b.installed))
            });
            let headers = facts.kernels.get(kernel).is_some_and(|k| k.has_headers());
            if work && !headers {
                return Err(super::commands::no_headers(facts, kernel));
            }
        }
        let sources = self.owed_sources();
        let dead_and_new = self.owed_kernels();
        for (kernel, modules) in self.arrived(&sources, &dead_and_new) {
            let entry = wanted.entry(kernel).or_default();
            for (id, why) in modules {
                entry.entry(id).or_insert(why);
            }
        }
        self.take_over();
        self.bring(&wanted, Will { retry: true, ..Will::AUTOMATIC });
        self.leave(&sources, &dead_and_new);
        self.settle(&sources, &dead_and_new);
        Ok(())
    }

    fn owed_sources(&self) -> BTreeSet<String> {
        let of = |debt: &Debt| match debt {
            Debt::Source(dir) => Some(dir.clone()),
            _ => None,
        };
        self.facts.debts.iter().filter_map(of).collect()
    }

    fn owed_kernels(&self) -> BTreeSet<KernelRelease> {
        let of = |debt: &Debt| match debt {
            Debt::Kernel(kernel) => Some(kernel.clone()),
            _ => None,
        };
        self.facts.debts.iter().filter_map(of).collect()
    }

    /// Installations that were begun and not finished.
    fn owed_pairs(&self) -> Wanted {
        let mut wanted = Wanted::new();
        for debt in &self.facts.debts {
            if let Debt::Install { module, kernel } = debt {
                let removal = Debt::Remove(module.clone());
                let there = self
                    .facts
                    .modules
                    .get(module)
                    .is_some_and(|m| m.source != SourcePlace::Missing);
                let alive = self.facts.kernels.get(kernel).is_some_and(|k| k.kernel.alive);
                if there && alive && !self.facts.debts.contains(&removal) {
                    wanted
                        .entry(kernel.clone())
                        .or_default()
                        .insert(module.clone(), vec![Reason::Interrupted]);
                }
            }
        }
        wanted
    }

    /// Takes over what dkms built for kernels that are there, without compiling.
    pub(super) fn take_over(&mut self) {
        let facts = self.facts;
        for (id, module) in &facts.modules {
            for (kernel, pair) in &module.pairs {
                let unrecorded = pair
                    .built
                    .as_ref()
                    .is_some_and(|built| built.record.is_none() && !built.outdated);
                if unrecorded && pair.inputs.is_some() && module.is_registered() {
                    self.step(Action::Adopt(id.clone(), kernel.clone()), Vec::new());
                }
            }
        }
    }

    /// Changed sources for all kernels, all sources for changed kernels.
    fn arrived(&mut self, sources: &BTreeSet<String>, kernels: &BTreeSet<KernelRelease>) -> Wanted {
        let facts = self.facts;
        let mut wanted = self.owed_pairs();
        let newest = facts.newest_sources();
        let asked_for = |id: &ModuleId, kernel: &KernelRelease| {
            kernels.contains(kernel)
                || facts.modules.get(id).is_some_and(|m| sources.contains(&m.source_dir))
        };
        for (kernel, about) in &facts.kernels {
            let modules: Vec<&ModuleId> =
                newest.iter().copied().filter(|id| asked_for(id, kernel)).collect();
            if modules.is_empty() || !about.kernel.alive {
                continue;
            }
            if !about.owned {
                self.note(Note::Copy(kernel.clone()));
                wanted.remove(kernel);
                continue;
            }
            if !about.has_headers() {
                // An object that is there needs no headers.
                let missing =
                    |id: &&&ModuleId| !facts.built(id, kernel).is_some_and(|b| b.installed);
                if modules.iter().any(|id| missing(&id)) {
                    self.note(super::commands::headers_note(facts, kernel));
                }
                continue;
            }
            for id in modules {
                let conf = facts.pair(id, kernel).and_then(|pair| pair.conf.as_ref());
                if let Some(Ok(ConfFacts { autoinstall: Autoinstall::No, .. })) = conf {
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

    /// Plans builds and installations so that each module follows those it builds upon.
    pub(super) fn bring(&mut self, wanted: &Wanted, will: Will) {
        let facts = self.facts;
        for (kernel, modules) in wanted {
            let order = Order::of(facts, kernel, modules);
            for id in order.circular {
                self.step(
                    Action::Fail {
                        message: format!(
                            "BUILD_DEPENDS of {id} leads back to itself: remove the circle from \
                             the dkms.conf files"
                        ),
                        module: id,
                        kernel: Some(kernel.clone()),
                        code: 13,
                    },
                    Vec::new(),
                );
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
        let fingerprint = inputs.fingerprint();
        let built_upon_change = inputs
            .depends
            .keys()
            .any(|name| self.building.contains(&(name.clone(), kernel.clone())));
        let recorded = pair.built.as_ref().and_then(|built| built.record.as_ref());
        if built_upon_change
            && recorded.is_some_and(|record| record.inputs.depends != inputs.depends)
        {
            self.bring_one(id, kernel, Vec::new(), will);
        } else {
            let fingerprint = recorded.map_or(fingerprint, |record| record.inputs.fingerprint());
            self.fingerprints.insert((id.name.clone(), kernel.clone()), fingerprint);
        }
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
        let conf = match &pair.conf {
            Some(Ok(conf)) => conf,
            Some(Err(problem)) => {
                return self.fail(id, kernel, problem.message.clone(), problem.code);
            }
            None => return self.note(super::commands::headers_note(facts, kernel)),
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
            return self.note(super::commands::headers_note(facts, kernel));
        };
        self.fingerprints.insert((id.name.clone(), kernel.clone()), inputs.fingerprint());

        let to_build = self.reasons_to_build(pair, &inputs, will);
        if !to_build.is_empty() {
            if let Some(failure) = &pair.failure
                && failure.fingerprint == inputs.fingerprint()
                && !will.retry
            {
                let stays = facts.installed(&id.name, kernel).cloned();
                return self.note(Note::KnownFailure {
                    module: id.clone(),
                    kernel: kernel.clone(),
                    what: failure.what.clone(),
                    log: failure.log.clone(),
                    stays,
                });
            }
            why.extend(to_build);
            self.register(id);
            let after = conf
                .depends
                .iter()
                .filter(|name| self.building.contains(&((*name).clone(), kernel.clone())))
                .cloned()
                .collect();
            self.building.insert((id.name.clone(), kernel.clone()));
            self.step(
                Action::Build {
                    module: id.clone(),
                    kernel: kernel.clone(),
                    after,
                    depends: inputs.depends,
                },
                why.clone(),
            );
            if will.install {
                self.install(id, kernel, Vec::new());
            }
            return;
        }
        if let Some(built) = &pair.built
            && will.install
        {
            let interrupted = why.contains(&Reason::Interrupted);
            if built.other_compression {
                why.push(Reason::Compression);
            }
            if !built.installed {
                why.push(Reason::NotInstalled);
            } else if !built.in_place {
                why.push(Reason::Misplaced);
            }
            if !why.is_empty() && (interrupted || will.force || why != [Reason::Asked]) {
                return self.install(id, kernel, why);
            }
        }
        self.will_have.insert((id.clone(), kernel.clone()));
        if will.strict {
            let state = if will.install { "installed" } else { "built" };
            self.note(Note::Already { module: id.clone(), kernel: kernel.clone(), state });
        }
    }

    fn reasons_to_build(&self, pair: &Pair, inputs: &Inputs, will: Will) -> Vec<Reason> {
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

    pub(super) fn install(&mut self, id: &ModuleId, kernel: &KernelRelease, why: Vec<Reason>) {
        let replaces = self.facts.installed(&id.name, kernel).filter(|old| *old != id).cloned();
        self.touched.insert(kernel.clone());
        self.will_have.insert((id.clone(), kernel.clone()));
        self.step(Action::Install { module: id.clone(), kernel: kernel.clone(), replaces }, why);
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
        let satisfied = |name: &ModuleName| {
            self.building.contains(&(name.clone(), kernel.clone()))
                || self.facts.installed(name, kernel).is_some()
                || self.will_have.iter().any(|(id, k)| id.name == *name && k == kernel)
                || self.facts.versions(name).any(|(_, module)| {
                    // What is not meant for this kernel is not waited for.
                    let conf = module.pairs.get(kernel).and_then(|pair| pair.conf.as_ref());
                    matches!(conf, Some(Ok(ConfFacts { excluded: Some(_), .. })))
                })
        };
        conf.depends.iter().find(|name| !satisfied(name)).cloned()
    }

    fn lacks(&mut self, id: &ModuleId, kernel: &KernelRelease, needs: ModuleName, will: Will) {
        let known = self.facts.versions(&needs).next().is_some();
        let failed_before = self
            .facts
            .versions(&needs)
            .any(|(_, m)| m.pairs.get(kernel).is_some_and(|pair| pair.failure.is_some()));
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

/// What a module builds upon, directly or not, as far as there are sources for it.
fn needed_by<'a>(
    facts: &'a Facts,
    id: &ModuleId,
    kernel: &KernelRelease,
    newest: &BTreeSet<&'a ModuleId>,
) -> BTreeSet<&'a ModuleId> {
    let mut needed = BTreeSet::new();
    let mut open = vec![id];
    while let Some(next) = open.pop() {
        let conf = facts.pair(next, kernel).and_then(|pair| pair.conf.as_ref());
        let Some(Ok(conf)) = conf else { continue };
        for dependency in newest.iter().filter(|other| conf.depends.contains(&other.name)) {
            if needed.insert(*dependency) {
                open.push(dependency);
            }
        }
    }
    needed
}

fn known(facts: &Facts) -> impl Iterator<Item = (&ModuleId, &ModuleFacts)> {
    let known = |m: &ModuleFacts| m.is_registered() && m.link != SourceLink::Broken;
    facts.modules.iter().filter(move |(_, m)| known(m))
}

/// Of the versions that dkms knows of each module, the newest.
fn newest_registered(facts: &Facts) -> Vec<&ModuleId> {
    let mut newest: BTreeMap<&ModuleName, &ModuleId> = BTreeMap::new();
    for (id, _) in known(facts) {
        let best = newest.entry(&id.name).or_insert(id);
        if crate::version::compare(id.version.as_str(), best.version.as_str()).is_gt() {
            *best = id;
        }
    }
    newest.into_values().collect()
}

/// The modules of one kernel, each after those it builds upon.
struct Order {
    sorted: Vec<ModuleId>,
    circular: Vec<ModuleId>,
}

impl Order {
    /// Orders what is wanted together with what is installed, since that may have to follow.
    fn of(facts: &Facts, kernel: &KernelRelease, wanted: &BTreeMap<ModuleId, Vec<Reason>>) -> Self {
        let installed = facts.modules.keys().filter(|id| {
            facts.built(id, kernel).is_some_and(|built| built.installed)
                && !wanted.keys().any(|other| other.name == id.name)
        });
        let mut left: BTreeSet<&ModuleId> = wanted.keys().chain(installed).collect();
        let mut sorted = Vec::new();
        while !left.is_empty() {
            let names: BTreeSet<&ModuleName> = left.iter().map(|id| &id.name).collect();
            let ready: Vec<&ModuleId> = left
                .iter()
                .copied()
                .filter(|id| {
                    let conf = facts.pair(id, kernel).and_then(|pair| pair.conf.as_ref());
                    match conf {
                        Some(Ok(conf)) => !conf.depends.iter().any(|name| names.contains(name)),
                        _ => true,
                    }
                })
                .collect();
            if ready.is_empty() {
                break;
            }
            for id in ready {
                left.remove(id);
                sorted.push(id.clone());
            }
        }
        let circular = left.into_iter().filter(|id| wanted.contains_key(id)).cloned().collect();
        Self { sorted, circular }
    }
}
