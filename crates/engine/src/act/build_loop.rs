//! The part of a plan that builds, side by side, each module installed as soon as it is built.

use std::collections::VecDeque;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::Run;
use super::retry::Retry;
use crate::act::workers::{self, Job, WorkerEvent, Workers};
use crate::building::compilers::{compile_once, launcher};
use crate::dkms_tree::BuildCache;
use crate::failure::Failure;
use crate::machine::Gate;
use crate::names::{KernelRelease, ModuleId};
use crate::plan::{Action, Plan, Step};
use crate::report::{Event, Outcome, Phase};

impl Run<'_> {
    /// Builds side by side, and installs each module when it is built.
    pub(super) fn builds(&mut self, plan: &Plan) {
        let (machine, facts, confs) = (self.machine, self.facts, self.confs);
        let jobs = workers::jobs(plan);
        if jobs.is_empty() {
            return;
        }
        if let Err(why) = launcher::set_up(machine) {
            self.say(&[why.to_string()]);
        }
        if let Err(why) = compile_once::set_up(machine) {
            self.say(&[format!("every module asks the compilers anew: {why}")]);
        }
        let mut gate = Gate::new(&machine.memory, machine.settings.memory_per_job());
        let (most, fewer) = gate.jobs(machine.settings.jobs());
        self.say(fewer.as_slice());
        let clients =
            jobserver::Client::new(most).and_then(|it| Ok((it, jobserver::Client::new(1)?)));
        let (client, alone) = match clients {
            Ok(clients) => clients,
            Err(error) => {
                for job in &jobs {
                    let failed = Failure::transient(1, format!("cannot make a jobserver: {error}"));
                    self.finish(job.step, Outcome::Failed(failed), Duration::ZERO);
                }
                return;
            }
        };
        let (shared, objects) = (workers::shared(&jobs), workers::objects(&jobs, facts));
        let mut schedule = workers::schedule(&jobs, facts, machine);
        thread::scope(|scope| {
            let mut workers =
                Workers::new(scope, machine, facts, confs, &client, &shared, &objects);
            let (mut built, mut retry) = (VecDeque::new(), Retry::default());
            loop {
                let wanted = schedule.has_ready() && !self.is_stopped() && !retry.is_running();
                if wanted && gate.admits(workers.running()) {
                    workers.ask_for_token();
                }
                // What is built is installed when no other build can be started instead.
                let news =
                    workers.news().or_else(|| built.is_empty().then(|| workers.wait()).flatten());
                let Some(news) = news else {
                    if let Some(number) = built.pop_front() {
                        self.install_built(&jobs[number]);
                        schedule.end(number);
                    } else if let Some(number) = retry.begin() {
                        workers.start_alone(number, &jobs[number], &alone);
                    } else {
                        break;
                    }
                    continue;
                };
                match news {
                    WorkerEvent::Token(token) => {
                        while !self.is_stopped()
                            && let Some(number) = schedule.begin()
                        {
                            if self.begin(&jobs[number]) {
                                gate.starts();
                                workers.start(number, &jobs[number], token);
                                break;
                            }
                            schedule.end(number);
                        }
                    }
                    WorkerEvent::Phase(number, phase, at) => {
                        self.watch.event(&Event::Phase { step: jobs[number].step, phase, at });
                    }
                    WorkerEvent::Ended(number, mut result, elapsed) => {
                        if !self.is_stopped() && retry.takes(number, &mut result) {
                            let Job { step, module, kernel, .. } = &jobs[number];
                            let (phase, at) = (Phase::Waiting, Instant::now());
                            self.watch.event(&Event::Phase { step, phase, at });
                            self.say(&[format!(
                                "{module} ran out of memory for {kernel}: it is tried once more, \
                                 alone, when the others are done"
                            )]);
                            continue;
                        }
                        let outcome = result.map_or_else(Outcome::Failed, |()| Outcome::Done);
                        self.finish(jobs[number].step, outcome, elapsed);
                        built.push_back(number);
                    }
                }
            }
        });
        compile_once::forget(machine);
        if let Err(error) = BuildCache::of(&machine.trees).trim(machine.settings.cache_size()) {
            self.report.trouble.push(error.to_string());
        }
        for Job { module, kernel, .. } in &jobs {
            // Only now: no other build has it as its own any more. What a failed one left stays,
            // and so does, as with dkms, the empty one of a build that did not come about.
            if self.is_stopped() || machine.trees.built(module, kernel, &machine.arch).is_dir() {
                let _ = fs::remove_dir(machine.trees.build(module));
            }
        }
    }

    /// Installs what was built, if it is to be installed.
    fn install_built(&mut self, job: &Job<'_>) {
        if let Some(install) = job.install {
            self.step_unless_stopped(install);
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
            // From here on the installation is pending.
            self.note_install(job.module, job.kernel).err().map(|e| Outcome::Failed(e.into()))
        } else {
            None
        };
        let Some(outcome) = hindrance else { return true };
        self.finish(job.step, outcome, Duration::ZERO);
        self.install_built(job);
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
            Action::TakeIn { .. }
            | Action::Load { .. }
            | Action::Register(_)
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
