//! Chooses the modules to build and install after a transaction and for `dkms autoinstall`.

use std::collections::BTreeSet;

use super::module_for_kernel::{BuildPolicy, WantedBuilds};
use super::order::{Order, needed_by};
use super::{Action, Note, Planner, refusals};
use crate::conf::Autoinstall;
use crate::dkms_tree::{PendingWork, Reason};
use crate::facts::{Facts, Pair, SourcePlace, Subjects};
use crate::failure::Failure;
use crate::names::{KernelRelease, ModuleId, ModuleName};

/// The sources and kernels that transactions or pending work concern.
pub(super) struct Touched {
    /// The sources and kernels that arrived or changed.
    pub arrived: Subjects,
    /// The sources and kernels that a completed transaction removed. They may exist again.
    pub departed: Subjects,
    /// The modules whose sources have departed.
    pub gone: BTreeSet<ModuleId>,
}

impl Touched {
    pub(super) fn concerns_source(&self, dir: &str) -> bool {
        self.arrived.sources.contains(dir) || self.departed.sources.contains(dir)
    }

    fn concerns_kernel(&self, kernel: &KernelRelease) -> bool {
        self.arrived.kernels.contains(kernel) || self.departed.kernels.contains(kernel)
    }
}

impl Planner<'_> {
    /// Plans pending work, and the work after a transaction.
    pub(super) fn sync(&mut self, arrived: &Subjects, departed: &Subjects) {
        let touched = self.touched(arrived, departed);
        self.gone.clone_from(&touched.gone);
        self.mend_links(&touched.gone);
        self.adopt_builds();
        let mut wanted = self.wanted_after(&touched);
        self.add_interrupted(&touched.gone, &mut wanted);
        self.add_repairs(None, &touched.gone, &mut wanted);
        self.leave_begun_by_outer_run(&mut wanted);
        for (module, kernel) in self.facts.tried.keys() {
            wanted.get_mut(kernel).and_then(|modules| modules.remove(module));
        }
        self.plan_builds(&wanted, BuildPolicy::AUTOMATIC);
        self.keep_groups_together();
        self.remove_gone(&touched);
        self.note_pending(&touched);
    }

    /// Plans `dkms autoinstall`: installs added modules with AUTOINSTALL=yes and finishes pending
    /// work.
    ///
    /// If `kernels` is `None`, plans for all installed kernels. If `only` is true, pending work for
    /// other kernels stays pending. Returns `Err` if modules should be built but none of the
    /// kernels has headers, unless `only` is false and there is pending work.
    pub(super) fn autoinstall(
        &mut self,
        kernels: Option<&[KernelRelease]>,
        only: bool,
    ) -> Result<(), Failure> {
        let facts = self.facts;
        if facts.no_autoinstall {
            self.note(Note::Problem("autoinstall is disabled by /etc/dkms/no-autoinstall".into()));
            return Ok(());
        }
        let touched = self.touched(&Subjects::default(), &Subjects::default());
        self.gone.clone_from(&touched.gone);
        let mut wanted = self.wanted_after(&touched);
        let kernels = kernels.map_or_else(|| self.installed_kernels(), <[_]>::to_vec);
        let mut lacking = Vec::new();
        for kernel in &kernels {
            let willing = willing_modules(facts, kernel, &touched.gone);
            if !facts.has_headers(kernel) {
                if willing.iter().any(|id| !facts.is_installed(id, kernel)) {
                    lacking.push(kernel);
                }
                continue;
            }
            let modules = wanted.entry(kernel.clone()).or_default();
            for id in willing {
                modules.entry(id.clone()).or_default();
            }
        }
        let mut elsewhere = None;
        if !lacking.is_empty() && !kernels.iter().any(|kernel| facts.has_headers(kernel)) {
            // Pending work may be for other kernels, so continue.
            if only || facts.pending.is_empty() {
                return Err(refusals::no_headers_at_all(facts, &lacking));
            }
            elsewhere = refusals::headers_elsewhere(facts).map(Note::Problem);
        }
        for kernel in lacking {
            self.note(refusals::headers_note(facts, kernel));
        }
        self.plan.notes.extend(elsewhere);
        self.note_refused_confs(&kernels);
        self.add_interrupted(&touched.gone, &mut wanted);
        self.add_repairs(Some(&kernels), &touched.gone, &mut wanted);
        self.leave_begun_by_outer_run(&mut wanted);
        self.leave_planned_by_outer_run(&mut wanted);
        self.mend_links(&touched.gone);
        self.adopt_builds();
        let policy = BuildPolicy { retry: true, ..BuildPolicy::AUTOMATIC };
        if only {
            self.leave_other_kernels(&kernels, &touched, &mut wanted);
        }
        self.plan_builds(&wanted, policy);
        self.keep_groups_together();
        if only {
            return Ok(());
        }
        self.remove_gone(&touched);
        self.note_pending(&touched);
        Ok(())
    }

    /// Adds a note for each module that cannot be added because its dkms.conf is refused. This is
    /// not an error: like dkms, autoinstall ignores modules that have not been added.
    fn note_refused_confs(&mut self, kernels: &[KernelRelease]) {
        for (id, module) in &self.facts.modules {
            if module.is_registered() || module.source != SourcePlace::Present {
                continue;
            }
            let refused = kernels
                .iter()
                .find_map(|kernel| module.pairs.get(kernel)?.conf.as_ref()?.as_ref().err());
            if let Some(failure) = refused {
                self.note(Note::Problem(format!("{id}: not added: {failure}")));
            }
        }
    }

    /// Drops from `wanted` every kernel that is not in `kernels`. Pending work for other kernels
    /// and for removed sources stays pending.
    fn leave_other_kernels(
        &mut self,
        kernels: &[KernelRelease],
        touched: &Touched,
        wanted: &mut WantedBuilds,
    ) {
        let facts = self.facts;
        self.plan.notes.retain(|note| match note {
            Note::NoHeaders { kernel, .. } | Note::Copy(kernel) => kernels.contains(kernel),
            _ => true,
        });
        self.note_pending(touched);
        let is_other = |kernel: &KernelRelease| !kernels.contains(kernel);
        let others = wanted.iter().filter(|(kernel, _)| is_other(kernel));
        let others: BTreeSet<ModuleName> =
            others.flat_map(|(_, modules)| modules.keys()).map(|id| id.name.clone()).collect();
        wanted.retain(|kernel, _| !is_other(kernel));
        let is_left = |dir: &String| {
            let of_source = |id: &ModuleId| {
                facts.modules.get(id).is_some_and(|module| module.source_dir == *dir)
            };
            touched.gone.iter().any(of_source)
                || facts.modules.keys().any(|id| others.contains(&id.name) && of_source(id))
        };
        self.plan.finishes.retain(|work| match work {
            PendingWork::Kernel(kernel) | PendingWork::Install { kernel, .. } => {
                kernels.contains(kernel)
            }
            PendingWork::Source(dir) => !is_left(dir),
            _ => false,
        });
    }

    /// Returns the sources and kernels in `arrived` and `departed`, and those that arrived or
    /// departed according to pending work and recorded transactions.
    pub(super) fn touched(&self, arrived: &Subjects, departed: &Subjects) -> Touched {
        let (mut arrived, mut departed) = (arrived.clone(), departed.clone());
        for transaction in &self.facts.transactions {
            arrived.extend(&transaction.arrived);
            departed.extend(&transaction.departed);
        }
        for work in &self.facts.pending {
            match work {
                // A later arrival cancels the departure.
                PendingWork::DepartedSource(dir) if !arrived.sources.contains(dir) => {
                    departed.sources.insert(dir.clone());
                }
                PendingWork::DepartedKernel(kernel) if !arrived.kernels.contains(kernel) => {
                    departed.kernels.insert(kernel.clone());
                }
                _ => {}
            }
        }
        for work in &self.facts.pending {
            match work {
                PendingWork::Source(dir) => drop(arrived.sources.insert(dir.clone())),
                PendingWork::Kernel(kernel) => drop(arrived.kernels.insert(kernel.clone())),
                PendingWork::Transaction { sources, kernels } => {
                    arrived.sources.extend(sources.iter().cloned());
                    arrived.kernels.extend(kernels.iter().cloned());
                }
                _ => {}
            }
        }
        let gone = self.gone_modules(&departed.sources);
        Touched { arrived, departed, gone }
    }

    /// Adds to `wanted` the modules whose installation was interrupted, except those in `gone`.
    fn add_interrupted(&self, gone: &BTreeSet<ModuleId>, wanted: &mut WantedBuilds) {
        let facts = self.facts;
        for work in &facts.pending {
            let PendingWork::Install { module, kernel } = work else { continue };
            let known = facts.modules.get(module).is_some_and(|m| m.source != SourcePlace::Missing);
            if known
                && facts.is_alive(kernel)
                && !gone.contains(module)
                && !self.is_replaced(module, kernel, wanted)
            {
                let modules = wanted.entry(kernel.clone()).or_default();
                modules.entry(module.clone()).or_default().push(Reason::Interrupted);
            }
        }
    }

    /// Returns true if another version of a module is wanted for a kernel and has been built.
    ///
    /// A version that has yet to be built does not count: its build may fail, so `id` is installed
    /// first.
    fn is_replaced(&self, id: &ModuleId, kernel: &KernelRelease, wanted: &WantedBuilds) -> bool {
        let mut others = wanted.get(kernel).into_iter().flat_map(|modules| modules.keys());
        others.any(|it| it != id && it.name == id.name && self.facts.built(it, kernel).is_some())
    }

    /// Adds to `wanted` the modules whose objects in a kernel's directory are missing or damaged,
    /// and the installed modules that are missing from the dkms tree. If `kernels` is `None`,
    /// checks all kernels. Ignores the modules in `gone`.
    fn add_repairs(
        &self,
        kernels: Option<&[KernelRelease]>,
        gone: &BTreeSet<ModuleId>,
        wanted: &mut WantedBuilds,
    ) {
        let facts = self.facts;
        let newest = facts.newest_sources(gone);
        let covered = facts.kernels.iter().filter(|(kernel, about)| {
            about.kernel.alive
                && about.owned
                && kernels.is_none_or(|kernels| kernels.contains(kernel))
        });
        for (kernel, about) in covered {
            let damaged: BTreeSet<&ModuleId> = about
                .inventory
                .on_top()
                .filter(|object| object.condition.needs_repair())
                .map(|object| &object.module)
                .collect();
            for id in about.inventory.modules().into_iter().filter(|id| !gone.contains(*id)) {
                let (module, why) = if facts.built(id, kernel).is_none() {
                    let source = newest.iter().find(|source| source.name == id.name);
                    let Some(source) = source.filter(|_| about.has_headers()) else { continue };
                    (*source, Reason::Lost)
                } else if damaged.contains(id) && !self.is_replaced(id, kernel, wanted) {
                    (id, Reason::NotInPlace)
                } else {
                    continue;
                };
                let modules = wanted.entry(kernel.clone()).or_default();
                modules.entry(module.clone()).or_default().push(why);
            }
        }
    }

    /// Plans to adopt the builds that dkms made. These builds have no record, and are not compiled
    /// again.
    fn adopt_builds(&mut self) {
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
                    self.before_builds(action, Vec::new());
                }
            }
        }
    }

    /// Returns the modules to build for each kernel.
    ///
    /// If an installed kernel or its headers arrived or departed, all modules are built for this
    /// kernel. If the source of any version of a module arrived or departed, the module is built
    /// for all kernels.
    fn wanted_after(&mut self, touched: &Touched) -> WantedBuilds {
        let facts = self.facts;
        let mut wanted = WantedBuilds::new();
        let newest = facts.newest_sources(&touched.gone);
        // If the source of one version was touched, the module's newest version is built.
        let source_touched = |id: &ModuleId| {
            facts.versions(&id.name).any(|(_, m)| touched.concerns_source(&m.source_dir))
        };
        for (kernel, about) in facts.kernels.iter().filter(|(_, about)| about.kernel.alive) {
            let kernel_touched =
                touched.concerns_kernel(kernel) || self.lacks_what_arrived(kernel, touched);
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
                // Installed modules need no headers, so the note is added only if a module is
                // missing.
                let missing = |id: &&ModuleId| !facts.is_installed(id, kernel);
                if modules.iter().any(missing) {
                    self.note(refusals::headers_note(facts, kernel));
                }
                continue;
            }
            self.add_dependents(&mut modules, kernel, &newest);
            for id in modules {
                if facts.conf(id, kernel).is_some_and(|c| c.autoinstall == Autoinstall::No) {
                    let (module, kernel) = (id.clone(), kernel.clone());
                    self.note(Note::NotAutomatic { module, kernel });
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

    /// Returns true if a kernel lacks headers, and the headers of another release of its package
    /// have arrived.
    fn lacks_what_arrived(&self, kernel: &KernelRelease, touched: &Touched) -> bool {
        !self.facts.has_headers(kernel)
            && match refusals::headers_note(self.facts, kernel) {
                Note::NoHeaders { other: Some(other), .. } => touched.concerns_kernel(&other),
                _ => false,
            }
    }

    /// Adds to `modules` the modules that depend on one of them and are not installed.
    ///
    /// An earlier run may have skipped them because the dependency was missing.
    fn add_dependents<'a>(
        &self,
        modules: &mut BTreeSet<&'a ModuleId>,
        kernel: &KernelRelease,
        newest: &BTreeSet<&'a ModuleId>,
    ) {
        let facts = self.facts;
        loop {
            let names: BTreeSet<&ModuleName> = modules.iter().map(|id| &id.name).collect();
            let depends = |id: &&ModuleId| {
                !modules.contains(*id)
                    && facts.installed(&id.name, kernel).is_none()
                    && facts
                        .conf(id, kernel)
                        .is_some_and(|c| c.depends.iter().any(|d| names.contains(d)))
            };
            let dependents: Vec<&ModuleId> = newest.iter().copied().filter(depends).collect();
            if dependents.is_empty() {
                return;
            }
            modules.extend(dependents);
        }
    }
}

/// Returns the modules that `dkms autoinstall` builds for a kernel. Ignores the modules in `gone`.
fn willing_modules<'a>(
    facts: &'a Facts,
    kernel: &KernelRelease,
    gone: &BTreeSet<ModuleId>,
) -> Vec<&'a ModuleId> {
    let willing = |id: &&ModuleId| {
        match facts.pair(id, kernel).and_then(|pair| pair.conf.as_ref()) {
            Some(Ok(conf)) => conf.autoinstall == Autoinstall::Yes,
            // A module whose dkms.conf cannot be read is planned too, so that its failure is
            // reported.
            Some(Err(_)) => true,
            None => false,
        }
    };
    facts.newest_registered(gone).into_iter().filter(willing).collect()
}
