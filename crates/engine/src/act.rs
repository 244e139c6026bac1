//! Carrying out a plan: the one room that changes the machine.

mod again;
mod builds;
mod interruption;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::build::{self, Workplace};
use crate::confs::Confs;
use crate::copy;
use crate::debts::{Debt, Debts};
use crate::digest::Digest;
use crate::durable::{self, FileError};
use crate::facts::Facts;
use crate::index;
use crate::intake;
use crate::links;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::place;
use crate::plan::{Action, Plan, Step};
use crate::recompress;
use crate::record::{self, Inputs, Record};
use crate::remove;
use crate::report::{Event, Failed, Finished, Outcome, Report, Watch};
use crate::scripts::Script;
use crate::settle::Ledger;
use crate::site::Site;
use crate::status::seen::Seen;
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
    let mut run = Run {
        facts,
        site,
        debts: Debts::of(&site.trees),
        confs: Confs::new(site),
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
        look_again(plan, site);
        let trouble = ledger.settle(&run.own_debts, &run.report);
        run.report.trouble.extend(trouble);
    }
    run.report
}

struct Run<'a> {
    facts: &'a Facts,
    site: &'a Site,
    debts: Debts,
    confs: Confs<'a>,
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

    fn carry_out(&mut self, action: &Action) -> Result<Outcome, Failed> {
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
            Action::Fail { message, code, .. } => return Err(Failed::new(*code, message.clone())),
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

    fn register(&self, module: &ModuleId) -> Result<(), Failed> {
        let trees = &self.site.trees;
        durable::create_dirs(&trees.build(module))?;
        let dir = self.facts.modules.get(module).map(|facts| facts.source_dir.clone());
        let source = trees.source.join(dir.unwrap_or_else(|| module.source_dir()));
        let target = links::text_for(&trees.root, &source);
        durable::replace_link(&trees.source_link(module), &target)?;
        Ok(())
    }

    fn use_kept(&self, module: &ModuleId) -> Result<(), Failed> {
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
    ) -> Result<(), Failed> {
        let site = self.site;
        let pair = self.facts.pair(module, kernel);
        let (Some(inputs), Some(values)) =
            (pair.and_then(|p| p.inputs.clone()), pair.and_then(|p| p.values.clone()))
        else {
            return Err(Failed::new(1, "its source or the kernel's headers cannot be read"));
        };
        let installed = remove::is_installed(site, module, kernel);
        let objects = place::objects(site, module, kernel);
        let placed = if installed { place::placed(site, module, kernel) } else { Vec::new() };
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

    fn install(
        &mut self,
        module: &ModuleId,
        kernel: &KernelRelease,
        replaces: Option<&ModuleId>,
    ) -> Result<(), Failed> {
        let mut old_script = None;
        if let Some(old) = replaces {
            old_script = self.script_of(old, kernel, "POST_REMOVE");
        }
        let mut said = Vec::new();
        let site = self.site;
        self.touched.insert(kernel.clone());
        if let Some(about) = self.facts.kernels.get(kernel) {
            recompress::objects(site, module, &about.kernel)?;
        }
        place::restore_originals(site, module, kernel)?;
        place::place(site, module, kernel, replaces, || {
            if let (Some(old), Some(value)) = (replaces, &old_script) {
                said = run_script(site, old, kernel, "POST_REMOVE", value);
            }
        })?;
        if let Some(value) = self.script_of(module, kernel, "POST_INSTALL") {
            said.extend(run_script(site, module, kernel, "POST_INSTALL", &value));
        }
        self.say(&said);
        // The scripts may not have come to their end.
        self.check_stop()
    }

    fn uninstall(&mut self, module: &ModuleId, kernel: &KernelRelease) -> Result<(), Failed> {
        self.touched.insert(kernel.clone());
        let foreign = remove::uninstall(self.site, module, kernel)?;
        if let Some(value) = self.script_of(module, kernel, "POST_REMOVE") {
            let said = run_script(self.site, module, kernel, "POST_REMOVE", &value);
            self.say(&said);
        }
        let left: Vec<String> = foreign
            .iter()
            .map(|path| format!("{} stays: it is not what {module} placed there", path.display()))
            .collect();
        self.say(&left);
        self.check_stop()
    }

    fn say(&mut self, lines: &[String]) {
        for line in lines {
            self.watch.event(&Event::Says(line));
        }
    }

    /// The value of a script's directive: as recorded when the module was built, or as
    /// dkms.conf says now.
    fn script_of(
        &mut self,
        module: &ModuleId,
        kernel: &KernelRelease,
        directive: &str,
    ) -> Option<String> {
        let path = Record::path(&self.site.trees, module, kernel, &self.site.arch);
        if let Some(record) = Record::read(&path) {
            return record.values.text(directive, 0).map(str::to_owned);
        }
        let about = self.facts.kernels.get(kernel)?;
        let (values, _) = self.confs.ask(module, &about.kernel).ok()?;
        values.text(directive, 0).map(str::to_owned)
    }

    fn deregister(&mut self, module: &ModuleId) -> Result<Outcome, Failed> {
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

/// Looks at what is built now, for the next `dkms status`; not when we leave the machine.
fn look_again(plan: &Plan, site: &Site) {
    let leaving = plan.steps.iter().any(|step| step.action == Action::Leave);
    if !leaving && let Err(error) = Seen::refresh(&site.trees) {
        log::info!("{error}");
    }
}

/// Runs a script from the module's source, as it is or as it was kept.
fn run_script(
    site: &Site,
    module: &ModuleId,
    kernel: &KernelRelease,
    directive: &'static str,
    value: &str,
) -> Vec<String> {
    let link = site.trees.source_link(module);
    let dir = links::resolve(&site.trees.root, &link).unwrap_or(link);
    Script { directive, value, place: Workplace::open(dir) }.run(site, module, kernel)
}
