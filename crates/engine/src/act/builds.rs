//! The part of a plan that builds, side by side, each module installed as soon as it is built.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::Duration;

use super::Run;
use crate::cache::Cache;
use crate::crew::{self, Crew, Job};
use crate::names::{KernelRelease, ModuleId};
use crate::plan::{Action, Plan, Step};
use crate::report::{Event, Failed, Outcome};

impl Run<'_> {
    /// Builds side by side, and installs each module when it is built.
    pub(super) fn builds(&mut self, plan: &Plan) {
        let (site, facts) = (self.site, self.facts);
        let jobs = crew::jobs(plan, facts);
        if jobs.is_empty() {
            return;
        }
        let most = site.settings.jobs();
        let client = match jobserver::Client::new(most) {
            Ok(client) => client,
            Err(error) => {
                for job in &jobs {
                    let failed = Failed::new(1, format!("cannot make a jobserver: {error}"));
                    let failed = Failed { passing: true, ..failed };
                    self.finish(job.step, Outcome::Failed(failed), Duration::ZERO);
                }
                return;
            }
        };
        let active = AtomicUsize::new(0);
        thread::scope(|scope| {
            let mut crew = Crew::new(scope, site, facts, &client, &active);
            let mut waiting: BTreeSet<usize> = (0..jobs.len()).collect();
            let mut running: BTreeSet<usize> = BTreeSet::new();
            loop {
                let before = waiting.len();
                for number in waiting.clone() {
                    if crew.running() == most || self.is_stopped() {
                        break;
                    }
                    let open = waiting.union(&running).map(|other| &jobs[*other]);
                    let busy =
                        running.iter().any(|r| jobs[*r].module.name == jobs[number].module.name);
                    if busy || is_waiting(&jobs[number], open) {
                        continue;
                    }
                    waiting.remove(&number);
                    if self.begin(&jobs[number]) {
                        running.insert(number);
                        crew.start(number, &jobs[number]);
                    }
                }
                let ended = crew.wait(|number, phase, at| {
                    self.watch.event(&Event::Phase { step: jobs[number].step, phase, at });
                });
                let Some((number, built, elapsed)) = ended else {
                    // What was skipped may have been what others waited for.
                    if waiting.len() < before {
                        continue;
                    }
                    break;
                };
                running.remove(&number);
                let outcome = built.map_or_else(Outcome::Failed, |()| Outcome::Done);
                self.finish(jobs[number].step, outcome, elapsed);
                if let Some(install) = jobs[number].install {
                    self.step_unless_stopped(install);
                }
            }
        });
        if let Err(error) = Cache::of(&site.trees).trim(site.settings.cache_size()) {
            self.report.trouble.push(error.to_string());
        }
    }

    /// Whether a build can begin; if not, it and its installation are over.
    fn begin(&mut self, job: &Job<'_>) -> bool {
        self.watch.event(&Event::Started(job.step));
        let broken = job.after.iter().find(|name| self.has_failed(name, job.kernel));
        let hindrance = if self.not_registered.contains(job.module) {
            Some(Outcome::Skipped("it could not be added".into()))
        } else if let Some(name) = broken {
            Some(Outcome::Skipped(format!("{name}, which it builds upon, failed")))
        } else if job.install.is_some() {
            // From here on it is owed.
            self.owe_install(job.module, job.kernel).err().map(|e| Outcome::Failed(e.into()))
        } else {
            None
        };
        let Some(outcome) = hindrance else { return true };
        self.finish(job.step, outcome, Duration::ZERO);
        if let Some(install) = job.install {
            self.step(install);
        }
        false
    }
}

/// The steps that come before all builds, and those that come after them: what is built may
/// need what is known and placed already, and takes the place of what is removed.
pub(super) fn around_builds(plan: &Plan) -> (Vec<&Step>, Vec<&Step>) {
    let built = |module: &ModuleId, kernel: &KernelRelease| {
        plan.steps.iter().any(|step| {
            matches!(&step.action, Action::Build { module: m, kernel: k, .. }
                if m == module && k == kernel)
        })
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for step in &plan.steps {
        match &step.action {
            Action::Build { .. } => {}
            Action::Install { module, kernel, .. } if built(module, kernel) => {}
            Action::Register(_)
            | Action::UseKept(_)
            | Action::Adopt { .. }
            | Action::Install { .. }
            | Action::Fail { .. } => before.push(step),
            Action::Uninstall(..)
            | Action::Unbuild(..)
            | Action::Deregister(_)
            | Action::Depmod(_)
            | Action::Sweep(_)
            | Action::Leave => after.push(step),
        }
    }
    (before, after)
}

/// Whether a job builds upon one that is not over.
fn is_waiting<'a>(job: &Job<'_>, mut open: impl Iterator<Item = &'a Job<'a>>) -> bool {
    open.any(|other| other.kernel == job.kernel && job.after.contains(&other.module.name))
}
