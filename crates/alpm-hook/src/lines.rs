//! The output of a hook while modules are built, installed and removed.
//!
//! pacman forwards a hook's output line by line and copies it to pacman's log, so the output has no
//! progress bars and no colour. The planned builds and their reasons come first, followed by one
//! line for each finished module, the notes, and finally the failures, which name the packages.

mod line_writer;
mod package_names;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Duration;

use dkms_engine::machine::Machine;
use dkms_engine::names::{KernelRelease, ModuleId};
use dkms_engine::plan::{Action, Plan, Step, Task};
use dkms_engine::report::{Event, Finished, Outcome, Watch};

pub use line_writer::LineWriter;
pub use package_names::PackageNames;

use crate::told::{Told, kept_directory};

/// Prints a warning for each problem in the settings of `machine`, except those in `told`. Adds the
/// printed problems to `told`.
pub fn warn_of_settings(machine: &Machine, told: &mut Told) {
    let mut out = LineWriter::new(io::stdout());
    for problem in machine.settings.problems().iter().filter(|text| !told.includes(text)) {
        out.lines(&format!("warning: {problem}"));
    }
    told.add(machine.settings.problems().to_vec());
}

/// The progress of a task that builds or installs a module.
struct ModuleTask {
    module: ModuleId,
    kernel: KernelRelease,
    /// The time that the task has taken so far.
    elapsed: Duration,
    is_cached: bool,
    /// Whether the task builds the module but does not install it.
    is_only_built: bool,
    /// Whether the output already has a line for the task.
    is_reported: bool,
}

/// Watches a run and writes a hook's output.
pub struct Lines<W> {
    out: LineWriter<W>,
    names: PackageNames,
    tasks: BTreeMap<Task, ModuleTask>,
    /// The number of finished tasks.
    finished_tasks: usize,
    /// The number of successful tasks.
    done: usize,
    /// The messages that an earlier hook of the same transaction has printed, and that this hook
    /// does not repeat.
    told: Told,
    /// The module versions that are replaced by another version of the same module.
    replaced: BTreeSet<ModuleId>,
    /// The modules to remove, each mapped to the kernels from which it has been uninstalled so far.
    /// A single line of output names all these kernels.
    removed: BTreeMap<ModuleId, Vec<KernelRelease>>,
    /// The removed kernels, each mapped to the number of modules that are removed with it.
    removed_kernels: BTreeMap<KernelRelease, usize>,
}

impl<W: Write> Lines<W> {
    /// Returns a writer to `out` that prints package names from `names`.
    pub fn new(out: W, names: PackageNames) -> Self {
        Self {
            out: LineWriter::new(out),
            names,
            tasks: BTreeMap::new(),
            finished_tasks: 0,
            done: 0,
            told: Told::default(),
            replaced: BTreeSet::new(),
            removed: BTreeMap::new(),
            removed_kernels: BTreeMap::new(),
        }
    }

    /// Omits the notes, warnings and errors in `told` from the output.
    pub(crate) fn omit(&mut self, told: Told) {
        self.told = told;
    }

    /// Writes one line.
    pub fn say(&mut self, line: &str) {
        self.out.line(line);
    }

    /// Writes each line of a message.
    pub(crate) fn say_lines(&mut self, message: &str) {
        self.out.lines(message);
    }

    /// Writes the plan of a dry run.
    pub fn dry_run(&mut self, plan: &Plan) {
        for line in plan.to_string().lines() {
            self.out.line(line);
        }
        self.out.line(if plan.is_empty() {
            "Dry run: nothing to do."
        } else {
            "Dry run: nothing was changed."
        });
    }

    fn planned(&mut self, plan: &Plan) {
        self.read_plan(plan);
        let groups = groups(plan);
        if !groups.is_empty() {
            let compiles = plan.jobs.iter().any(|job| !job.is_cached());
            self.out.line(match compiles {
                true => "Kernel modules to build and install:",
                false => "Kernel modules to install:",
            });
        }
        for ((kernel, why), modules) in groups {
            let modules: Vec<String> = modules.into_iter().map(ToString::to_string).collect();
            let why = if why.is_empty() { why } else { format!(" ({why})") };
            self.out.line(&format!(
                "  for {}: {}{why}",
                self.names.kernel(kernel),
                modules.join(", ")
            ));
        }
    }

    /// Records the plan's tasks, and the steps that share one line of output.
    fn read_plan(&mut self, plan: &Plan) {
        for task in plan.tasks() {
            let steps: Vec<&Step> = plan.steps_of(task).collect();
            if let Some((module, kernel)) = steps.iter().find_map(|step| step.action.job()) {
                let (module, kernel) = (module.clone(), kernel.clone());
                let is_install = |step: &&Step| matches!(step.action, Action::Install { .. });
                let is_cached = steps.iter().any(|step| step.is_cached());
                let is_only_built = !steps.iter().any(is_install);
                let elapsed = Duration::ZERO;
                let is_reported = false;
                let progress =
                    ModuleTask { module, kernel, elapsed, is_cached, is_only_built, is_reported };
                self.tasks.insert(task, progress);
            }
        }
        let mut unbuilt: BTreeMap<&KernelRelease, usize> = BTreeMap::new();
        for Step { action, .. } in plan.steps() {
            match action {
                Action::Install { replaces, .. } => self.replaced.extend(replaces.clone()),
                Action::Deregister(module) => {
                    self.removed.entry(module.clone()).or_default();
                }
                Action::Unbuild(_, kernel) => *unbuilt.entry(kernel).or_default() += 1,
                // This is the last step for a removed kernel, so its count is complete.
                Action::RemoveLeftovers(kernel) => {
                    let count = unbuilt.get(kernel).copied().unwrap_or_default();
                    self.removed_kernels.insert(kernel.clone(), count);
                }
                _ => {}
            }
        }
    }

    fn finished(&mut self, finished: &Finished) {
        let Finished { step, outcome, .. } = finished;
        match (&step.action, outcome) {
            (action, _) if action.job().is_some() => self.module_step(finished),
            // The summary reports this failure.
            (Action::Fail { .. }, _) => {}
            (Action::Adopt { module, kernel, .. }, Outcome::Done) => {
                let module = self.names.module(module);
                self.out.line(&format!("{module} for {kernel}: adopted from dkms"));
            }
            (Action::Uninstall { module, kernel, .. }, Outcome::Done) => {
                if self.removed_kernels.contains_key(kernel) {
                    // The line for the kernel covers this step.
                } else if let Some(kernels) = self.removed.get_mut(module) {
                    kernels.push(kernel.clone());
                } else {
                    self.out.line(&format!("{module}: uninstalled from {kernel}"));
                }
            }
            (Action::Deregister(module), outcome) => self.module_removed(module, outcome),
            (Action::RemoveLeftovers(kernel), outcome) => self.kernel_removed(kernel, outcome),
            (action, Outcome::Failed(failed)) => {
                let what = failed.message.lines().next().unwrap_or_default();
                self.out.line(&format!("error: cannot {action}: {what}"));
            }
            _ => {}
        }
    }

    /// Adds a finished step to its task. If that finishes the task, writes the task's line.
    fn module_step(&mut self, finished: &Finished) {
        let Finished { task, step: Step { action, .. }, outcome, elapsed } = finished;
        let Some(module) = action.module() else { return };
        let Some(progress) = self.tasks.get_mut(task) else { return };
        let built = !progress.elapsed.is_zero();
        progress.elapsed += *elapsed;
        let time = seconds(progress.elapsed);
        let is_cached = progress.is_cached;
        let made = if is_cached { "restored from the cache" } else { "built" };
        let how = match (action, outcome) {
            (Action::Build { .. }, Outcome::Done) if !progress.is_only_built => return,
            (Action::Build { .. }, Outcome::Done) if is_cached => made.to_owned(),
            (Action::Build { .. }, Outcome::Done) => format!("{made} in {time}"),
            (Action::Install { replaces, .. }, Outcome::Done) => {
                let place = replaces
                    .as_ref()
                    .map(|old| format!(" (replacing {})", old.version))
                    .unwrap_or_default();
                match built {
                    true if is_cached => format!("installed from the cache{place}"),
                    true => format!("built and installed in {time}{place}"),
                    false => format!("installed{place}"),
                }
            }
            (_, Outcome::Declined(_)) if built => format!("{made}, not installed"),
            (_, Outcome::Declined(_)) => "not installed".to_owned(),
            (_, Outcome::Failed(_)) => format!("FAILED after {time}"),
            (Action::Install { .. }, Outcome::Skipped(_)) if progress.is_reported => return,
            (_, Outcome::Skipped(why)) => format!("skipped: {why}"),
            (_, Outcome::Done) => return,
        };
        progress.is_reported = true;
        self.finished_tasks += 1;
        self.done += usize::from(*outcome == Outcome::Done);
        let kernel = action.kernel().map(|kernel| format!(" for {kernel}")).unwrap_or_default();
        let (number, all) = (self.finished_tasks, self.tasks.len());
        let line = format!("({number}/{all}) {module}{kernel}: {how}");
        self.out.line(&line);
    }

    fn module_removed(&mut self, module: &ModuleId, outcome: &Outcome) {
        let kernels = self.removed.remove(module).unwrap_or_default();
        let kernels: Vec<String> = kernels.iter().map(ToString::to_string).collect();
        let from = if kernels.is_empty() {
            String::new()
        } else {
            format!(" from {}", kernels.join(", "))
        };
        match outcome {
            // The line for the new version, or the report of that version's failure, covers this
            // step.
            Outcome::Done | Outcome::Skipped(_)
                if from.is_empty() && self.replaced.contains(module) => {}
            Outcome::Done => self.out.line(&format!("{module}: removed{from}")),
            Outcome::Skipped(why) if from.is_empty() => {
                self.out.line(&format!("{module}: kept: {why}"));
            }
            Outcome::Skipped(why) => {
                self.out.line(&format!("{module}: removed{from}; kept: {why}"))
            }
            Outcome::Failed(_) => self.out.line(&format!("{module}: removal FAILED")),
            Outcome::Declined(_) => {}
        }
    }

    fn kernel_removed(&mut self, kernel: &KernelRelease, outcome: &Outcome) {
        let count = self.removed_kernels.remove(kernel).unwrap_or_default();
        let modules = match count {
            1 => "1 module removed with it".to_owned(),
            count => format!("{count} modules removed with it"),
        };
        match outcome {
            Outcome::Done if count == 0 => {}
            Outcome::Done => self.out.line(&format!("{kernel}: kernel removed; {modules}")),
            Outcome::Skipped(why) => {
                let note = kept_directory(kernel, why);
                if !self.told.includes(&note) {
                    self.out.line(&format!("note: {note}"));
                }
            }
            Outcome::Failed(failed) => {
                self.out.line(&format!(
                    "error: cannot remove leftover files of {kernel}: {}",
                    failed.message
                ));
            }
            Outcome::Declined(_) => {}
        }
    }
}

impl<W: Write> Watch for Lines<W> {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Planned(plan) => self.planned(plan),
            Event::Started { .. } | Event::Phase { .. } => {}
            Event::Finished(finished) => self.finished(finished),
            Event::Line(line) => self.out.line(line),
        }
    }
}

/// Returns the modules to build or install, grouped by kernel and reason. Omits modules that are
/// restored from the cache, because their own lines follow at once.
fn groups(plan: &Plan) -> BTreeMap<(&KernelRelease, String), BTreeSet<&ModuleId>> {
    let installs = plan.before.iter().filter(|step| matches!(step.action, Action::Install { .. }));
    let mut groups: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let builds = plan.jobs.iter().filter(|job| !job.is_cached()).map(|job| &job.build);
    for Step { action, why } in installs.chain(builds) {
        let (Some(module), Some(kernel)) = (action.module(), action.kernel()) else { continue };
        let why: Vec<String> = why.iter().map(ToString::to_string).collect();
        groups.entry((kernel, why.join("; "))).or_default().insert(module);
    }
    groups
}

/// Formats a duration as in `9.9 s`, `41 s` or `3 min 20 s`.
fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        whole @ 10..120 => format!("{whole} s"),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}
