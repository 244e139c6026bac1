//! Carrying out a plan: the one room that changes the machine.

mod again;
mod builds;
mod images;
mod installs;
mod interruption;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::afterwards;
use crate::build;
use crate::confs::Confs;
use crate::copy;
use crate::debts::{Debt, Debts};
use crate::digest::Digest;
use crate::durable::{self, FileError};
use crate::facts::Facts;
use crate::failure::Failure;
use crate::index;
use crate::intake;
use crate::links;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::place;
use crate::plan::{Action, Plan, Step};
use crate::record::{self, Inputs, Object, Record};
use crate::remove;
use crate::report::{Event, Finished, Outcome, Report, Watch};
use crate::settle::Ledger;
use crate::site::Site;
use crate::timings::Recorder;

/// Carries out `plan`, one step after the other. A step that fails stops only what builds upon it.
/// Where the settings want it, and there is something to build, a page shows what took how long.
///
/// If we are asked to end (see [`Stop`](crate::run::Stop)), the builds are ended, the module that
/// is being placed is finished and indexed, and the rest stays owed.
///
/// Whoever calls this holds the lock, and has read `facts` under it.
pub fn carry_out(plan: &Plan, facts: &Facts, site: &Site, watch: &mut dyn Watch) -> Report {
    let builds = plan.steps.iter().any(|step| matches!(step.action, Action::Build { .. }));
    let Some(page) = site.settings.timings().filter(|_| builds) else {
        return run(plan, facts, site, watch);
    };
    let mut recorder = Recorder::new(watch, site.settings.jobs());
    let mut report = run(plan, facts, site, &mut recorder);
    report.trouble.extend(recorder.write(page).err().map(|error| error.to_string()));
    report
}

fn run(plan: &Plan, facts: &Facts, site: &Site, watch: &mut dyn Watch) -> Report {
    watch.event(&Event::Planned(plan));
    let confs = Confs::new(site);
    let mut run = Run {
        facts,
        site,
        debts: Debts::of(&site.trees),
        confs: &confs,
        report: Report::default(),
        failed: BTreeSet::new(),
        not_registered: BTreeSet::new(),
        not_built: BTreeSet::new(),
        own_debts: BTreeSet::new(),
        touched: BTreeSet::new(),
        watch,
    };
    let ledger = Ledger::open(&site.trees, plan, facts);
    run.report.trouble.extend(ledger.note());
    if !plan.steps.is_empty()
        && let Err(error) = remove::strays(site)
    {
        run.report.trouble.push(error.to_string());
    }
    let (before, after) = builds::around_builds(plan);
    before.iter().for_each(|step| run.step_unless_stopped(step));
    run.builds(plan);
    after.iter().for_each(|step| run.step_unless_stopped(step));
    remove::empty_directories(&site.trees);
    run.report.interrupted = run.interruption(plan);
    if run.report.interrupted.is_none() {
        afterwards::all(site, &run.report);
        let trouble = ledger.settle(&run.own_debts, &run.report);
        run.report.trouble.extend(trouble);
    }
    run.report.warnings = site.warnings.take();
    run.report
}

struct Run<'a> {
    facts: &'a Facts,
    site: &'a Site,
    debts: Debts,
    confs: &'a Confs<'a>,
    report: Report,
    /// Modules that are not what was planned, for each kernel.
    failed: BTreeSet<(ModuleName, KernelRelease)>,
    /// Modules that could not be made known.
    not_registered: BTreeSet<ModuleId>,
    /// Builds that did not come about: there is nothing to install.
    not_built: BTreeSet<(ModuleId, KernelRelease)>,
    /// What this run began itself; it is paid when the run ends, after depmod.
    own_debts: BTreeSet<Debt>,
    /// Kernels that modules were placed for or taken from.
    touched: BTreeSet<KernelRelease>,
    watch: &'a mut dyn Watch,
}

impl Run<'_> {
    fn step(&mut self, step: &Step) {
        self.watch.event(&Event::Started(step));
        let started = Instant::now();
        let outcome = self.carry_out(&step.action).unwrap_or_else(Outcome::Failed);
        self.finish(step, outcome, started.elapsed());
    }

    fn finish(&mut self, step: &Step, outcome: Outcome, elapsed: Duration) {
        if outcome != Outcome::Done {
            self.remember(&step.action);
        }
        let cut_short = self.is_stopped() && matches!(outcome, Outcome::Failed(_));
        let outcome = if cut_short { Outcome::Skipped("interrupted".into()) } else { outcome };
        let finished = Finished { step: step.clone(), outcome, elapsed };
        self.watch.event(&Event::Finished(&finished));
        if !cut_short {
            self.report.finished.push(finished);
        }
    }

    fn remember(&mut self, action: &Action) {
        if let Action::Register(module) = action {
            self.not_registered.insert(module.clone());
        }
        let (Some(module), Some(kernel)) = (action.module(), action.kernel()) else { return };
        self.failed.insert((module.name.clone(), kernel.clone()));
        if matches!(action, Action::Build { .. }) {
            self.not_built.insert((module.clone(), kernel.clone()));
        }
    }

    fn carry_out(&mut self, action: &Action) -> Result<Outcome, Failure> {
        match action {
            Action::TakeIn { module, from } => intake::source(self.site, module, from)?,
            Action::Load { module, build, replace } => {
                if !intake::build(self.site, module, build, *replace)? {
                    return Ok(Outcome::Skipped("it is built already".into()));
                }
            }
            Action::Register(module) => self.register(module)?,
            Action::UseKept(module) => self.use_kept(module)?,
            Action::Adopt { module, kernel, depends } => self.adopt(module, kernel, depends)?,
            // Built beside others, see `builds`.
            Action::Build { .. } => {}
            Action::Install { module, kernel, replaces } => {
                if self.not_built.contains(&(module.clone(), kernel.clone())) {
                    self.owe_look(module, kernel)?;
                    return Ok(Outcome::Skipped("it was not built".into()));
                }
                self.owe_install(module, kernel)?;
                self.install(module, kernel, replaces.as_ref())?;
            }
            Action::Uninstall(module, kernel) => {
                let debt = Debt::Uninstall { module: module.clone(), kernel: kernel.clone() };
                self.owe(debt)?;
                self.uninstall(module, kernel)?;
            }
            Action::Unbuild(module, kernel) => {
                if remove::is_installed(self.site, module, kernel) {
                    return Ok(Outcome::Skipped(format!("{module} stays installed there")));
                }
                remove::unbuild(self.site, module, kernel)?;
                let begun = Debt::Install { module: module.clone(), kernel: kernel.clone() };
                self.debts.clear(&begun)?;
            }
            Action::Deregister(module) => return self.deregister(module),
            Action::Depmod(kernel) => index::depmod(self.site, kernel)?,
            Action::Sweep(kernel) => {
                if !remove::sweep(self.site, kernel)? {
                    return Ok(Outcome::Skipped("its directory holds files of others".into()));
                }
            }
            Action::Leave => remove::leave(self.site)?,
            Action::Fail { failure, .. } => return Err(failure.clone()),
        }
        Ok(Outcome::Done)
    }

    fn has_failed(&self, name: &ModuleName, kernel: &KernelRelease) -> bool {
        self.failed.contains(&(name.clone(), kernel.clone()))
    }

    /// Notes what is about to be begun, so that it is finished if we are not.
    fn owe(&mut self, debt: Debt) -> Result<(), FileError> {
        self.debts.write(&debt)?;
        if let Some(opposite) = debt.opposite() {
            self.debts.clear(&opposite)?;
            self.own_debts.remove(&opposite);
        }
        self.own_debts.insert(debt);
        Ok(())
    }

    /// What is begun with a module and a kernel.
    fn owe_install(&mut self, module: &ModuleId, kernel: &KernelRelease) -> Result<(), FileError> {
        self.owe(Debt::Install { module: module.clone(), kernel: kernel.clone() })
    }

    fn use_kept(&self, module: &ModuleId) -> Result<(), Failure> {
        let trees = &self.site.trees;
        let target = links::text_for(&trees.root, &trees.kept(module));
        durable::replace_link(&trees.source_link(module), &target)?;
        Ok(())
    }

    fn adopt(
        &mut self,
        module: &ModuleId,
        kernel: &KernelRelease,
        depends: &BTreeMap<ModuleName, Digest>,
    ) -> Result<(), Failure> {
        let site = self.site;
        let pair = self.facts.pair(module, kernel);
        let (Some(inputs), Some(values)) =
            (pair.and_then(|p| p.inputs.clone()), pair.and_then(|p| p.values().cloned()))
        else {
            return Err(Failure::new(1, "its source or the kernel's headers cannot be read"));
        };
        let installed = remove::is_installed(site, module, kernel);
        let mut objects = place::objects(site, module, kernel);
        if let Some(about) = self.facts.kernels.get(kernel) {
            place::by_conf(site, module, &about.kernel, &values, &mut objects);
        }
        let placed = objects.iter().filter(|_| installed).map(Object::in_place).collect();
        // What dkms builds, it signs with the same key.
        let signing = self.facts.kernels.get(kernel);
        let signing = signing.and_then(|about| site.signing.certificate(site, &about.kernel));
        let record = Record {
            format: record::FORMAT,
            module: module.clone(),
            kernel: kernel.clone(),
            arch: site.arch.clone(),
            adopted: true,
            build_seconds: 0,
            compiler: String::new(),
            inputs: Inputs { depends: depends.clone(), ..inputs },
            values,
            objects,
            placed,
            signing,
        };
        place::restore_originals(site, module, kernel)?;
        let source = site.trees.source_link(module);
        let source =
            links::resolve(&site.trees.root, &source).map_err(FileError::when("find", &source))?;
        let kept = site.trees.kept(module);
        if source != kept && !kept.exists() {
            // A copy: links would change the times by which the next one is judged.
            build::keep(&source, &kept, copy::copy_tree)?;
        }
        record.write(&Record::path(&site.trees, module, kernel, &site.arch))?;
        Ok(())
    }

    fn say(&mut self, lines: &[String]) {
        for line in lines {
            self.watch.event(&Event::Says(line));
        }
    }

    fn deregister(&mut self, module: &ModuleId) -> Result<Outcome, Failure> {
        let kernels = self.facts.modules.get(module).map(|m| &m.pairs);
        let kernels = kernels.into_iter().flat_map(|pairs| pairs.keys());
        let left = kernels.clone().find(|kernel| {
            let built = self.site.trees.built(module, kernel, &self.site.arch);
            built.join("module").is_dir()
        });
        if let Some(kernel) = left {
            return Ok(Outcome::Skipped(format!("it stays for {kernel}")));
        }
        let kernels: Vec<KernelRelease> = kernels.cloned().collect();
        self.owe(Debt::Remove(module.clone()))?;
        for kernel in &kernels {
            let begun = Debt::Install { module: module.clone(), kernel: kernel.clone() };
            self.debts.clear(&begun)?;
        }
        remove::deregister(self.site, module, kernels.into_iter())?;
        Ok(Outcome::Done)
    }
}
