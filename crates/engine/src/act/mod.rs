//! Carries out plans: the only part of the engine that changes the machine.

mod build_loop;
mod carry_over;
mod durability;
mod import;
mod install_thread;
mod installer;
mod interruption;
mod job_order;
mod panics;
mod pending;
mod pending_images;
mod post_transaction;
mod registration;
mod retry;
mod schedule;
mod side_by_side;
mod sweep;
mod together;
mod worker_event;
mod workers;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::conf::Confs;
use crate::dkms_tree::{Attempts, PendingList, PendingWork, Reason, cleanup};
use crate::facts::Facts;
use crate::failure::Failure;
use crate::installing::{self, BuiltModule};
use crate::machine::Machine;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::os::digest::Digest;
use crate::os::durable::FileError;
use crate::plan::{Action, Plan, Step, Task};
use crate::report::timings::Recorder;
use crate::report::{Event, Finished, Outcome, Report, Watch};

pub use carry_over::carry_over_registrations;

use installer::Installer;
use pending::RunPending;

/// Carries out `plan` and returns a report of the run.
///
/// The steps before the builds run in sequence, then the builds in parallel, and then the steps
/// after the builds. A failed step stops only the steps that depend on it. If the settings name a
/// file for the timings page and the plan has builds, the page is written at the end, except in a
/// [trial run](crate::machine::Trial).
///
/// After a request to [stop](crate::os::process::Stop), kills the running builds, finishes the
/// current installation, runs depmod for the kernels whose modules have changed, and leaves the
/// rest of the work pending.
///
/// The caller must hold the lock, and must have read `facts` while holding it.
pub fn carry_out(plan: &Plan, facts: &Facts, machine: &Machine, watch: &mut dyn Watch) -> Report {
    let has_page = !plan.jobs.is_empty() && machine.trial.is_none();
    let Some(page) = machine.settings.timings().filter(|_| has_page) else {
        return run(plan, facts, machine, watch);
    };
    let mut recorder = Recorder::new(watch, machine.settings.jobs());
    let mut report = run(plan, facts, machine, &mut recorder);
    report.errors.extend(recorder.write(page).err().map(|error| error.to_string()));
    report
}

fn run(plan: &Plan, facts: &Facts, machine: &Machine, watch: &mut dyn Watch) -> Report {
    watch.event(&Event::Planned(plan));
    let confs = Confs::new(machine);
    let mut run = Run {
        facts,
        machine,
        pending: PendingList::of(&machine.trees),
        confs: &confs,
        report: Report::default(),
        failed: BTreeSet::new(),
        not_registered: BTreeSet::new(),
        own_pending: BTreeSet::new(),
        touched: BTreeSet::new(),
        watch,
    };
    let mut run_pending = RunPending::open(&machine.trees, plan, facts);
    run.report.errors.extend(run_pending.note());
    run.report.errors.extend(sweep::remove_strays(machine, facts));
    // In a nested run, the outer run may be changing the inventories.
    if !machine.is_within_run() {
        save_inventories(machine, facts);
    }
    for (number, step) in plan.before.iter().enumerate() {
        run.step_unless_stopped(Task::Before(number), step);
    }
    run.jobs(&plan.jobs);
    for (number, step) in plan.after.iter().enumerate() {
        if run.is_needless_depmod(plan, &step.action) || run.finds_no_leftovers(&step.action) {
            continue;
        }
        run.step_unless_stopped(Task::After(number), step);
    }
    cleanup::remove_empty_directories(&machine.trees);
    run.report.interrupted = run.interruption(plan);
    if run.report.interrupted.is_none() {
        if machine.trial.is_none() {
            post_transaction::all(machine, &run.report);
        }
        let errors = match durability::sync(machine, &run.report) {
            Ok(()) => run_pending.clear_finished(&run.own_pending, &run.report),
            Err(error) => vec![error.to_string()],
        };
        run.report.errors.extend(errors);
    }
    run.report.warnings = machine.warnings.take();
    run.report
}

/// Writes the inventories that have changed since they were read. A failure is only logged, since
/// it merely makes later runs read the changed objects again.
fn save_inventories(machine: &Machine, facts: &Facts) {
    let changed = facts.kernels.values().filter(|about| about.inventory_changed);
    for mut inventory in changed.map(|about| about.inventory.clone()) {
        if let Err(error) = inventory.write() {
            log::info!("{}: {error}", machine.trees.install.display());
        }
    }
}

struct Run<'a> {
    facts: &'a Facts,
    machine: &'a Machine,
    pending: PendingList,
    confs: &'a Confs<'a>,
    report: Report,
    /// The module and kernel of each step that failed or was skipped.
    failed: BTreeSet<(ModuleName, KernelRelease)>,
    /// The modules that could not be added.
    not_registered: BTreeSet<ModuleId>,
    /// The pending work that this run has recorded while carrying out steps. Finished work is
    /// cleared at the end of the run, after depmod.
    own_pending: BTreeSet<PendingWork>,
    /// The kernels for which this run has begun to install or uninstall a module.
    touched: BTreeSet<KernelRelease>,
    watch: &'a mut dyn Watch,
}

impl Run<'_> {
    fn step(&mut self, task: Task, step: &Step) {
        self.watch.event(&Event::Started { task, step });
        let started = Instant::now();
        let outcome = self.perform(step).unwrap_or_else(Outcome::Failed);
        self.finish(task, step, outcome, started.elapsed());
    }

    fn finish(&mut self, task: Task, step: &Step, outcome: Outcome, elapsed: Duration) {
        // Modules that depend on a declined module can use the kernel's own module instead.
        if !matches!(outcome, Outcome::Done | Outcome::Declined(_)) {
            self.remember(&step.action);
        }
        let cut_short = self.is_stopped() && matches!(outcome, Outcome::Failed(_));
        let outcome = if cut_short { Outcome::Skipped("interrupted".into()) } else { outcome };
        let finished = Finished { task, step: step.clone(), outcome, elapsed };
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
    }

    fn perform(&mut self, step: &Step) -> Result<Outcome, Failure> {
        match &step.action {
            Action::ImportSource { module, from } => {
                let copied = import::source(self.machine, module, from)?;
                let note = copied.note().map(|note| format!("note: {module}: {note}"));
                self.say(note.as_slice());
            }
            Action::Register(module) | Action::Load { module, .. } if self.lacks_source(module) => {
                let dir = self.machine.trees.source.join(module.source_dir());
                let why = format!("its source was not copied to {}", dir.display());
                return Ok(Outcome::Skipped(why));
            }
            Action::Load { module, build, replace } => {
                if !import::build(self.machine, module, build, *replace)? {
                    return Ok(Outcome::Skipped("already built".into()));
                }
            }
            Action::Register(module) => self.register(module)?,
            Action::UseKept(module) => self.use_kept(module)?,
            Action::Adopt { module, kernel, depends } => self.adopt(module, kernel, depends)?,
            // Builds run as jobs.
            Action::Build { .. } => {}
            Action::Install { module, kernel, replaces } => {
                self.note_install(module, kernel, self.facts.built_inputs(module, kernel))?;
                self.touched.insert(kernel.clone());
                let new = BuiltModule::read(self.machine, module, kernel);
                let mut reasons = step.why.iter().filter(|why| **why != Reason::Requested);
                let only_to_sign = reasons.next() == Some(&Reason::Signing)
                    && reasons.next().is_none()
                    && !self.machine.options.force_install;
                return self.installer(|it| match only_to_sign {
                    true => it.sign(new),
                    false => it.install(new, replaces.as_ref()),
                });
            }
            Action::Uninstall { module, kernel, successors } => {
                let is_missing =
                    |new: &&ModuleId| !installing::is_installed(self.machine, new, kernel);
                if let Some(new) = successors.iter().find(is_missing) {
                    return Ok(Outcome::Skipped(format!("{new} is not installed")));
                }
                self.note_pending(PendingWork::uninstall(module, kernel), Digest::of_nothing())?;
                self.touched.insert(kernel.clone());
                self.installer(|it| it.uninstall(module, kernel))?;
            }
            Action::Unbuild(module, kernel) => {
                if installing::is_installed(self.machine, module, kernel) {
                    return Ok(Outcome::Skipped(format!("{module} stays installed")));
                }
                installing::unbuild(self.machine, module, kernel)?;
                self.pending.clear(&PendingWork::install(module, kernel))?;
            }
            Action::Deregister(module) => return self.deregister(module),
            Action::Depmod(kernel) => {
                installing::depmod(self.machine, kernel)?;
                installing::warn_of_shadowed(self.machine, kernel);
            }
            Action::RemoveLeftovers(kernel) => {
                if let Some(file) = installing::sweep(self.machine, kernel)? {
                    let why = format!("contains other files, such as {}", file.display());
                    return Ok(Outcome::Skipped(why));
                }
            }
            Action::Leave => cleanup::remove_own_files(self.machine)?,
            Action::Fail { failure, .. } => return Err(failure.clone()),
        }
        Ok(Outcome::Done)
    }

    /// Returns true if copying the source of `module` has failed in this run.
    fn lacks_source(&self, module: &ModuleId) -> bool {
        self.report.finished.iter().any(|finished| {
            let is_of = |action: &Action| matches!(action, Action::ImportSource { module: it, .. } if it == module);
            is_of(&finished.step.action) && finished.outcome != Outcome::Done
        })
    }

    /// Returns true if `action` removes the leftovers of a kernel that has no directory, and so
    /// would change nothing.
    fn finds_no_leftovers(&self, action: &Action) -> bool {
        let Action::RemoveLeftovers(kernel) = action else { return false };
        !self.machine.trees.kernel(kernel).exists()
    }

    /// Returns true if `action` is a depmod step that would change nothing, because no installation
    /// for its kernel has begun, and the other steps for this kernel remove nothing.
    fn is_needless_depmod(&self, plan: &Plan, action: &Action) -> bool {
        let Action::Depmod(kernel) = action else { return false };
        let mut others = plan
            .steps()
            .map(|step| &step.action)
            .filter(|it| it.kernel() == Some(kernel) && *it != action)
            .peekable();
        let only_builds = |action: &Action| {
            matches!(action, Action::Build { .. } | Action::Install { .. } | Action::Fail { .. })
        };
        others.peek().is_some() && !self.touched.contains(kernel) && others.all(only_builds)
    }

    fn has_failed(&self, name: &ModuleName, kernel: &KernelRelease) -> bool {
        self.failed.contains(&(name.clone(), kernel.clone()))
    }

    /// Records an attempt at `work` before the work starts, in case the run is killed. Clears the
    /// opposite work: uninstalling cancels a pending installation, and vice versa. `inputs` is the
    /// fingerprint of the work's inputs.
    fn note_pending(&mut self, work: PendingWork, inputs: Digest) -> Result<(), FileError> {
        let attempts = Attempts::after(self.facts.attempts.get(&work), inputs);
        match self.own_pending.contains(&work) {
            true => self.pending.begin_noted(&work, attempts)?,
            false => self.pending.begin(&work, Some(attempts))?,
        }
        if let Some(opposite) = work.opposite() {
            self.pending.clear(&opposite)?;
            self.own_pending.remove(&opposite);
        }
        self.own_pending.insert(work);
        Ok(())
    }

    /// Records the installation of a module for a kernel as pending.
    fn note_install(
        &mut self,
        module: &ModuleId,
        kernel: &KernelRelease,
        inputs: Digest,
    ) -> Result<(), FileError> {
        self.note_pending(PendingWork::install(module, kernel), inputs)?;
        self.pending.clear(&PendingWork::Remove(module.clone()))
    }

    /// Calls `work` with an [`Installer`] that passes its output to the observer of the run, and
    /// returns the result of `work`.
    fn installer<T>(&mut self, work: impl FnOnce(&mut Installer<'_>) -> T) -> T {
        let mut say = |line: &str| self.watch.event(&Event::Line(line));
        work(&mut Installer::new(self.machine, self.facts, self.confs, &mut say))
    }

    fn say(&mut self, lines: &[String]) {
        for line in lines {
            self.watch.event(&Event::Line(line));
        }
    }
}
