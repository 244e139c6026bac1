//! The output of a hook while modules are built, installed and removed.
//!
//! pacman forwards a hook's output by whole lines and copies them to its log, so there is no progress bar and no colour:
//! first what will be done and why, then a line for each finished module, notes, and finally the failures.

mod line_writer;
mod package_names;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use dkms_engine::names::{KernelRelease, ModuleId};
use dkms_engine::plan::{Action, Plan, Step, Task};
use dkms_engine::report::{Event, Finished, Outcome, Watch};

pub use line_writer::LineWriter;
pub use package_names::PackageNames;

/// A task that builds, installs or fails a module.
struct ModuleTask {
    /// The time that it has taken so far.
    elapsed: Duration,
    is_cached: bool,
    /// Whether it ends with the build.
    is_only_built: bool,
}

/// Writes a line for each event worth one.
pub struct Lines<W> {
    out: LineWriter<W>,
    names: PackageNames,
    tasks: BTreeMap<Task, ModuleTask>,
    /// The number of finished tasks.
    over: usize,
    /// The number of successful tasks.
    done: usize,
    /// Versions that a newer one replaces.
    replaced: BTreeSet<ModuleId>,
    /// Modules that are removed, each with the kernels so far: one line names them all.
    leaving: BTreeMap<ModuleId, Vec<KernelRelease>>,
    /// Kernels that are gone, each with the number of modules removed with it.
    gone: BTreeMap<KernelRelease, usize>,
}

impl<W: Write> Lines<W> {
    /// Returns lines that go to `out`, with the names of packages in `names`.
    pub fn new(out: W, names: PackageNames) -> Self {
        Self {
            out: LineWriter::new(out),
            names,
            tasks: BTreeMap::new(),
            over: 0,
            done: 0,
            replaced: BTreeSet::new(),
            leaving: BTreeMap::new(),
            gone: BTreeMap::new(),
        }
    }

    /// Writes one line.
    pub fn say(&mut self, line: &str) {
        self.out.line(line);
    }

    /// Writes what would be done and why.
    pub fn dry_run(&mut self, plan: &Plan) {
        for line in plan.to_string().lines() {
            self.out.line(line);
        }
        self.out.line(if plan.is_empty() {
            "Dry run: there is nothing to do."
        } else {
            "Dry run: nothing was changed."
        });
    }

    fn planned(&mut self, plan: &Plan) {
        self.take_in(plan);
        let groups = groups(plan);
        if !groups.is_empty() {
            self.out.line("Kernel modules to build and install:");
        }
        for ((kernel, why), modules) in groups {
            let modules: Vec<_> = modules.into_iter().map(package_names::plain).collect();
            let why = if why.is_empty() { why } else { format!(" ({why})") };
            self.out.line(&format!(
                "  for {}: {}{why}",
                self.names.kernel(kernel),
                modules.join(", ")
            ));
        }
    }

    /// Counts the tasks, and finds the steps that share a line.
    fn take_in(&mut self, plan: &Plan) {
        for task in plan.tasks() {
            let steps: Vec<&Step> = plan.steps_of(task).collect();
            if steps.iter().any(|step| concerns_module(&step.action)) {
                let is_install = |step: &&Step| matches!(step.action, Action::Install { .. });
                let is_cached = steps.iter().any(|step| step.is_cached());
                let is_only_built = !steps.iter().any(is_install);
                let elapsed = Duration::ZERO;
                self.tasks.insert(task, ModuleTask { elapsed, is_cached, is_only_built });
            }
        }
        let mut unbuilt: BTreeMap<&KernelRelease, usize> = BTreeMap::new();
        for Step { action, .. } in plan.steps() {
            match action {
                Action::Install { replaces, .. } => self.replaced.extend(replaces.clone()),
                Action::Deregister(module) => {
                    self.leaving.entry(module.clone()).or_default();
                }
                Action::Unbuild(_, kernel) => *unbuilt.entry(kernel).or_default() += 1,
                // After everything else that concerns the kernel.
                Action::Sweep(kernel) => {
                    let count = unbuilt.get(kernel).copied().unwrap_or_default();
                    self.gone.insert(kernel.clone(), count);
                }
                _ => {}
            }
        }
    }

    fn finished(&mut self, finished: &Finished) {
        let Finished { step, outcome, .. } = finished;
        match (&step.action, outcome) {
            (action, _) if concerns_module(action) => self.module_step(finished),
            (Action::Adopt { module, kernel, .. }, Outcome::Done) => {
                let module = self.names.module(module);
                self.out.line(&format!("{module} for {kernel}: taken over from dkms as it is"));
            }
            (Action::Uninstall(module, kernel), Outcome::Done) => {
                if self.gone.contains_key(kernel) {
                    // The line for the kernel says so.
                } else if let Some(left) = self.leaving.get_mut(module) {
                    left.push(kernel.clone());
                } else {
                    let line = format!("{}: removed from {kernel}", package_names::plain(module));
                    self.out.line(&line);
                }
            }
            (Action::Deregister(module), outcome) => self.left(module, outcome),
            (Action::Sweep(kernel), outcome) => self.swept(kernel, outcome),
            (action, Outcome::Failed(failed)) => {
                let what = failed.message.lines().next().unwrap_or_default();
                self.out.line(&format!("error: cannot {action}: {what}"));
            }
            _ => {}
        }
    }

    /// Writes one line when a task ends, in any of its steps.
    fn module_step(&mut self, finished: &Finished) {
        let Finished { task, step: Step { action, .. }, outcome, elapsed } = finished;
        let Some(module) = action.module() else { return };
        let Some(progress) = self.tasks.get_mut(task) else { return };
        let built = !progress.elapsed.is_zero();
        progress.elapsed += *elapsed;
        let time = seconds(progress.elapsed);
        let made = if progress.is_cached { "found in the cache" } else { "built" };
        let how = match (action, outcome) {
            (Action::Build { .. }, Outcome::Done) if !progress.is_only_built => return,
            (Action::Build { .. }, Outcome::Done) => format!("{made} in {time}"),
            (Action::Install { replaces, .. }, Outcome::Done) => {
                let place = replaces
                    .as_ref()
                    .map(|old| format!(" in place of {}", old.version))
                    .unwrap_or_default();
                let made = if built { format!("{made} and ") } else { String::new() };
                format!("{made}installed{place} in {time}")
            }
            (Action::Fail { .. }, _) => "FAILED".to_owned(),
            (_, Outcome::Failed(_)) => format!("FAILED after {time}"),
            // Its build failed or was skipped, which has a line already.
            (Action::Install { .. }, Outcome::Skipped(_)) => return,
            (_, Outcome::Skipped(why)) => format!("not built: {why}"),
            (_, Outcome::Done) => return,
        };
        self.over += 1;
        self.done += usize::from(*outcome == Outcome::Done);
        let kernel = action.kernel().map(|kernel| format!(" for {kernel}")).unwrap_or_default();
        let line = format!(
            "({}/{}) {}{kernel}: {how}",
            self.over,
            self.tasks.len(),
            self.names.module(module)
        );
        self.out.line(&line);
    }

    fn left(&mut self, module: &ModuleId, outcome: &Outcome) {
        let kernels = self.leaving.remove(module).unwrap_or_default();
        let kernels: Vec<String> = kernels.iter().map(ToString::to_string).collect();
        let from = if kernels.is_empty() {
            String::new()
        } else {
            format!(" from {}", kernels.join(", "))
        };
        let name = package_names::plain(module);
        match outcome {
            // The line of the version that replaces it says so.
            Outcome::Done if from.is_empty() && self.replaced.contains(module) => {}
            Outcome::Done => self.out.line(&format!("{name}: removed{from}")),
            Outcome::Skipped(why) if from.is_empty() => self.out.line(&format!("{name}: {why}")),
            Outcome::Skipped(why) => self.out.line(&format!("{name}: removed{from}; {why}")),
            Outcome::Failed(_) => self.out.line(&format!("{name}: FAILED to be removed")),
        }
    }

    fn swept(&mut self, kernel: &KernelRelease, outcome: &Outcome) {
        let count = self.gone.remove(kernel).unwrap_or_default();
        let modules = match count {
            1 => "1 module was removed with it".to_owned(),
            count => format!("{count} modules were removed with it"),
        };
        match outcome {
            Outcome::Done if count == 0 => {}
            Outcome::Done => self.out.line(&format!("{kernel} is gone: {modules}")),
            Outcome::Skipped(why) => {
                self.out
                    .line(&format!("{kernel} is gone, but /usr/lib/modules/{kernel} stays: {why}"));
            }
            Outcome::Failed(failed) => {
                self.out.line(&format!(
                    "error: cannot remove what is left of {kernel}: {}",
                    failed.message
                ));
            }
        }
    }
}

impl<W: Write> Watch for Lines<W> {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Planned(plan) => self.planned(plan),
            Event::Started { .. } | Event::Phase { .. } => {}
            Event::Finished(finished) => self.finished(finished),
            Event::Says(line) => self.out.line(line),
        }
    }
}

/// Returns the modules to build or install, by kernel and reason.
fn groups(plan: &Plan) -> BTreeMap<(&KernelRelease, String), BTreeSet<&ModuleId>> {
    let installs = plan.before.iter().filter(|step| matches!(step.action, Action::Install { .. }));
    let mut groups: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for Step { action, why } in installs.chain(plan.jobs.iter().map(|job| &job.build)) {
        let (Some(module), Some(kernel)) = (action.module(), action.kernel()) else { continue };
        let why: Vec<String> = why.iter().map(ToString::to_string).collect();
        groups.entry((kernel, why.join("; "))).or_default().insert(module);
    }
    groups
}

/// Returns true for a step that builds, installs or fails a module.
fn concerns_module(action: &Action) -> bool {
    matches!(action, Action::Build { .. } | Action::Install { .. } | Action::Fail { .. })
}

/// Formats a duration for people.
fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        whole @ 10..120 => format!("{whole} s"),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}
