//! Keeps installed modules together with the modules on which they depend.
//!
//! A module with BUILD_DEPENDS is built with the symbols of its dependencies, and the kernel may
//! refuse to load the module together with other builds of its dependencies. The dependencies of an
//! installed module are therefore replaced only together with the module.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{replace, take};

use super::successors::Successor;
use super::{Action, Job, Note, Planner, Step};
use crate::dkms_tree::Reason;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::os::digest::Digest;

impl Planner<'_> {
    /// Drops the installation of a dependency if an installed module depends on it and this plan
    /// does not replace that module. Otherwise, joins the jobs of the dependency and its
    /// dependents, so that they are installed only if all of their builds succeed.
    ///
    /// Ignores modules whose source was removed, unless they stay installed or another version
    /// replaces them.
    pub(super) fn keep_groups_together(&mut self) {
        for kernel in self.facts.kernels.keys() {
            while let Some((dependency, dependent)) = self.separated(kernel) {
                self.leave_dependency(kernel, dependency, &dependent);
            }
            self.join_groups(kernel);
        }
    }

    /// Returns a dependency that this plan replaces, and an installed module that depends on it and
    /// is not replaced. Returns `None` if there is no such pair.
    fn separated(&self, kernel: &KernelRelease) -> Option<(ModuleName, ModuleId)> {
        self.staying(kernel).find_map(|installed| {
            if self.building.contains(&(installed.name.clone(), kernel.clone())) {
                return None;
            }
            // Another version may already be built and need only be installed.
            let mut planned = self.will_have.iter();
            let planned = planned.find(|(id, of)| id.name == installed.name && of == kernel);
            let id = planned.map_or(installed, |(id, _)| id);
            let dependency = self.replaced_dependencies(id, kernel).next()?;
            Some((dependency.clone(), installed.clone()))
        })
    }

    /// Returns the installed modules, except those that this plan removes without a successor.
    fn staying(&self, kernel: &KernelRelease) -> impl Iterator<Item = &ModuleId> {
        self.facts.modules.keys().filter(|id| {
            let has_successor = || {
                let successor = self.successor(id, kernel, &self.gone);
                matches!(successor, Successor::Missing | Successor::Version)
            };
            self.facts.is_installed(id, kernel) && (!self.gone.contains(*id) || has_successor())
        })
    }

    /// Returns the modules that this plan installs instead of the dependencies with which a module
    /// was built.
    fn replaced_dependencies(
        &self,
        id: &ModuleId,
        kernel: &KernelRelease,
    ) -> impl Iterator<Item = &ModuleName> {
        let depends = self.built_with(id, kernel).into_iter().flatten();
        depends.flat_map(move |(name, fingerprint)| {
            let is_replaced = || {
                let key = (name.clone(), kernel.clone());
                self.installs(name, kernel) && self.fingerprints.get(&key) != Some(fingerprint)
            };
            let version = Some(name).filter(|_| is_replaced());
            version.into_iter().chain(self.with_objects_of(name, kernel))
        })
    }

    /// Returns the modules that this plan installs and that share an object with the installed
    /// module `name`, except that module itself.
    fn with_objects_of(
        &self,
        name: &ModuleName,
        kernel: &KernelRelease,
    ) -> impl Iterator<Item = &ModuleName> {
        let installed = self.facts.installed(name, kernel);
        let objects = installed.map(|id| self.facts.objects(id, kernel)).unwrap_or_default();
        let others = self.facts.modules.keys().filter(move |id| {
            id.name != *name
                && self.installs(&id.name, kernel)
                && !self.facts.objects(id, kernel).is_disjoint(&objects)
        });
        others.map(|id| &id.name)
    }

    /// Returns the fingerprints of the dependencies with which a module was built, or `None` if
    /// they are unknown.
    fn built_with(
        &self,
        id: &ModuleId,
        kernel: &KernelRelease,
    ) -> Option<&BTreeMap<ModuleName, Digest>> {
        let record = self.facts.built(id, kernel)?.record.as_ref()?;
        Some(&record.inputs.depends)
    }

    /// Returns true if this plan installs a version of a module for a kernel.
    fn installs(&self, name: &ModuleName, kernel: &KernelRelease) -> bool {
        let jobs = self.plan.jobs.iter().filter_map(|job| job.install.as_ref());
        jobs.chain(&self.plan.before).any(|step| is_installation(step, name, kernel))
    }

    /// Drops from the plan the builds and installations of `dependency` and of all modules that
    /// would be built with it, because the installed module `dependent` cannot be replaced with
    /// them.
    fn leave_dependency(
        &mut self,
        kernel: &KernelRelease,
        dependency: ModuleName,
        dependent: &ModuleId,
    ) {
        let mut left = vec![dependency];
        while let Some(name) = left.pop() {
            let is_it = |job: &Job| job.module.name == name && job.kernel == *kernel;
            let jobs: Vec<Job> = self.plan.jobs.extract_if(.., |job| is_it(job)).collect();
            let is_it = |step: &Step| is_installation(step, &name, kernel);
            let steps: Vec<Step> = self.plan.before.extract_if(.., |step| is_it(step)).collect();
            let steps = steps.iter().filter_map(|step| step.action.module());
            let modules: BTreeSet<&ModuleId> =
                steps.chain(jobs.iter().map(|job| &job.module)).collect();
            for module in modules {
                let (module, kernel) = (module.clone(), kernel.clone());
                self.will_have.remove(&(module.clone(), kernel.clone()));
                self.note(Note::Tied { module, kernel, with: dependent.clone() });
            }
            self.building.remove(&(name.clone(), kernel.clone()));
            left.extend(self.dependents(&name, kernel));
        }
        let changes = |step: &Step| {
            step.action.kernel() == Some(kernel) && !matches!(step.action, Action::Fail { .. })
        };
        if !self.plan.steps().any(changes) {
            self.touched.remove(kernel);
        }
    }

    /// Returns the modules that this plan installs for a kernel and that are built with `name`.
    fn dependents(&self, name: &ModuleName, kernel: &KernelRelease) -> Vec<ModuleName> {
        let jobs = self.plan.jobs.iter().filter(|job| {
            job.kernel == *kernel && job.install.is_some() && job.depends.contains_key(name)
        });
        let installed = self.plan.before.iter().filter_map(|step| {
            let Action::Install { module, kernel: of, .. } = &step.action else { return None };
            let is_built_with = || self.built_with(module, of)?.get(name);
            (of == kernel && is_built_with().is_some()).then_some(&module.name)
        });
        jobs.map(|job| &job.module.name).chain(installed).cloned().collect()
    }

    /// For one kernel, joins the jobs of modules that must be installed together.
    fn join_groups(&mut self, kernel: &KernelRelease) {
        let mut groups: Vec<BTreeSet<ModuleName>> = Vec::new();
        for installed in self.staying(kernel) {
            let replaced = self.replaced_dependencies(installed, kernel);
            let mut group: BTreeSet<ModuleName> = replaced.cloned().collect();
            if group.is_empty() {
                continue;
            }
            group.insert(installed.name.clone());
            let (joined, others): (Vec<_>, Vec<_>) =
                groups.into_iter().partition(|other| !other.is_disjoint(&group));
            group.extend(joined.into_iter().flatten());
            groups = others;
            groups.push(group);
        }
        for group in groups {
            self.make_jobs(&group, kernel);
            for job in self.plan.jobs.iter_mut().filter(|job| job.kernel == *kernel) {
                if group.contains(&job.module.name) {
                    job.with = group.iter().filter(|it| **it != job.module.name).cloned().collect();
                }
            }
        }
    }

    /// If any module of the group has a job, also creates a job for each existing build of the
    /// group that the plan installs.
    fn make_jobs(&mut self, group: &BTreeSet<ModuleName>, kernel: &KernelRelease) {
        let is_job = |job: &Job| job.kernel == *kernel && group.contains(&job.module.name);
        if !self.plan.jobs.iter().any(is_job) {
            return;
        }
        let is_of_group = |step: &Step| group.iter().any(|it| is_installation(step, it, kernel));
        let (steps, others) = take(&mut self.plan.before).into_iter().partition(is_of_group);
        self.plan.before = others;
        let steps: Vec<Step> = steps;
        let jobs = steps.into_iter().filter_map(|step| self.job_of(step, group)).collect();
        let later = replace(&mut self.plan.jobs, jobs);
        self.plan.jobs.extend(later);
    }

    /// Turns `install`, a step that installs an existing build, into a job that first makes the
    /// build again: from the cache, or by compiling it.
    fn job_of(&self, install: Step, group: &BTreeSet<ModuleName>) -> Option<Job> {
        let facts = self.facts;
        let (module, kernel) = install.action.job()?;
        let (module, kernel) = (module.clone(), kernel.clone());
        let inputs = &facts.built(&module, &kernel)?.record.as_ref()?.inputs;
        let why = facts.is_cached(&module, inputs).then_some(Reason::Cached).into_iter().collect();
        let action = Action::Build { module: module.clone(), kernel: kernel.clone() };
        let depends = inputs.depends.clone();
        let after = depends.keys().filter(|name| group.contains(*name)).cloned().collect();
        let build = Step { action, why };
        let with = BTreeSet::new();
        Some(Job { module, kernel, after, with, depends, build, install: Some(install) })
    }
}

/// Returns true if a step installs a version of a module for a kernel.
fn is_installation(step: &Step, name: &ModuleName, kernel: &KernelRelease) -> bool {
    matches!(&step.action, Action::Install { module, kernel: of, .. }
        if module.name == *name && of == kernel)
}
