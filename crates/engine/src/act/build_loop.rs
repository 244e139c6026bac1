//! Runs the plan's builds in parallel and installs each module when its build finishes.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::retry::Retry;
use super::side_by_side::Verdict;
use super::together::{Decision, Together};
use super::worker_event::WorkerEvent;
use super::workers::{BuildContext, Workers};
use super::{Run, job_order, pending_images};
use crate::building::{Tried, compile_once, launcher};
use crate::dkms_tree::{BuildCache, Inputs, PendingWork, Record};
use crate::failure::Failure;
use crate::machine::{Gate, Machine};
use crate::os::digest::Digest;
use crate::os::durable::{self, Durability, FileError};
use crate::os::jobserver::Jobserver;
use crate::plan::{Job, Task};
use crate::report::{Event, Outcome, Phase};

impl Run<'_> {
    /// Builds and installs the modules of all jobs.
    pub(super) fn jobs(&mut self, jobs: &[Job]) {
        let (machine, facts, confs) = (self.machine, self.facts, self.confs);
        if jobs.is_empty() {
            return;
        }
        // An error is ignored here: it recurs, and is reported, when the job begins.
        let installs = jobs.iter().filter(|job| job.install.is_some());
        let installs: Vec<(PendingWork, Digest)> = installs
            .map(|job| (PendingWork::install(&job.module, &job.kernel), self.inputs_of(job)))
            .collect();
        if !installs.is_empty() && self.pending.note_all(&installs).is_ok() {
            self.own_pending.extend(installs.into_iter().map(|(work, _)| work));
        }
        self.set_up_compilers();
        let mut gate = Gate::new(&machine.memory, machine.settings.memory_per_job());
        let (most, fewer) = gate.jobs(machine.settings.jobs());
        self.say(fewer.as_slice());
        let (jobserver, alone) = match jobservers(machine, most) {
            Ok(jobservers) => jobservers,
            Err(error) => {
                for (number, job) in jobs.iter().enumerate() {
                    let outcome = Outcome::Failed(error.clone());
                    self.finish(Task::Job(number), &job.build, outcome, Duration::ZERO);
                }
                return;
            }
        };
        let context = BuildContext::new(jobs, machine, facts, confs, &jobserver);
        let (mut schedule, mut side_by_side) = job_order::schedule(jobs, facts, machine);
        let mut together = Together::new(jobs);
        thread::scope(|scope| {
            let mut workers = Workers::new(scope, &context);
            let mut retry = Retry::default();
            loop {
                let wanted = schedule.has_ready() && !self.is_stopped() && !retry.is_running();
                if wanted && gate.admits(workers.running()) {
                    workers.ask_for_token();
                }
                let Some(event) = workers.wait() else {
                    if let Some(number) = retry.begin() {
                        let attempt = side_by_side.starts(number, true);
                        workers.start_alone(number, &jobs[number], &alone, attempt);
                    } else if self.is_stopped()
                        && let Some(number) = side_by_side.give_up()
                    {
                        let (job, tried) = (&jobs[number], Tried::interrupted());
                        workers.settle(number, job, tried, Duration::ZERO);
                    } else {
                        break;
                    }
                    continue;
                };
                match event {
                    WorkerEvent::Token(token) => {
                        while !self.is_stopped()
                            && let Some(number) = schedule.begin()
                        {
                            let job = &jobs[number];
                            if side_by_side.is_repeated(number) || self.begin(number, job) {
                                gate.starts();
                                let attempt = side_by_side.starts(number, false);
                                workers.start(number, job, token, attempt);
                                break;
                            }
                            schedule.end(number);
                            self.leave_together(jobs, &together.ended(number, None));
                        }
                    }
                    WorkerEvent::Phase(number, phase, at) => {
                        let (task, step) = (Task::Job(number), &jobs[number].build);
                        self.watch.event(&Event::Phase { task, step, phase, at });
                    }
                    WorkerEvent::Ended(number, tried, elapsed) => {
                        retry.ended();
                        schedule.hold(number);
                        for verdict in side_by_side.ends(number, tried, elapsed) {
                            match verdict {
                                Verdict::Repeat(_) if self.is_stopped() => {}
                                Verdict::Repeat(number) => {
                                    schedule.repeat(number);
                                    self.say_waiting(number, &jobs[number]);
                                }
                                Verdict::Accept(number, tried, elapsed) => {
                                    schedule.resume(number);
                                    workers.settle(number, &jobs[number], tried, elapsed);
                                }
                            }
                        }
                        let group = side_by_side.group(number);
                        for other in side_by_side.jobs_of_module(number) {
                            schedule.set_group(other, group);
                        }
                    }
                    WorkerEvent::Settled(number, mut result, elapsed) => {
                        let job = &jobs[number];
                        if !self.is_stopped() && retry.takes(number, &mut result) {
                            self.say_retry(number, job);
                        } else {
                            let record = self.end_build(number, job, result, elapsed);
                            let decision = together.ended(number, record);
                            self.leave_together(jobs, &decision);
                            let installs = |it: &(usize, _)| it.0 == number;
                            // Within a group, a build waits only for the builds of its
                            // dependencies, not for their installation.
                            if !job.with.is_empty() || !decision.install.iter().any(installs) {
                                schedule.end(number);
                            }
                            for (number, record) in decision.install {
                                workers.install(number, &jobs[number], record);
                            }
                        }
                    }
                    WorkerEvent::Installing(number) => {
                        self.touched.insert(jobs[number].kernel.clone());
                        if let Some(step) = &jobs[number].install {
                            self.watch.event(&Event::Started { task: Task::Job(number), step });
                        }
                    }
                    WorkerEvent::Line(line) => self.watch.event(&Event::Line(&line)),
                    WorkerEvent::Installed(number, result, elapsed) => {
                        if let (Some(step), Some(result)) = (&jobs[number].install, result) {
                            let outcome = result.unwrap_or_else(Outcome::Failed);
                            self.finish(Task::Job(number), step, outcome, elapsed);
                        }
                        schedule.end(number);
                    }
                }
            }
        });
        if !machine.is_within_run() {
            compile_once::forget(machine);
        }
        if machine.trial.is_none()
            && let Err(error) = trim_cache(machine)
        {
            self.report.errors.push(error.to_string());
        }
        for Job { module, kernel, .. } in jobs {
            // Remove the build directory if it is empty, now that no other build uses it. As with
            // dkms, the directory is kept if the build failed or never started.
            if self.is_stopped() || machine.trees.built(module, kernel, &machine.arch).is_dir() {
                let _ = fs::remove_dir(machine.trees.build(module));
            }
        }
    }

    /// Sets up the compilers of the run. A nested run uses the compilers of the outer run, whose
    /// builds may still be running.
    fn set_up_compilers(&mut self) {
        let machine = self.machine;
        if machine.is_within_run() {
            return;
        }
        if let Err(why) = launcher::set_up(machine) {
            self.say(&[why.to_string()]);
        }
        if let Err(why) = compile_once::set_up(machine) {
            self.say(&[format!("warning: compiler results are not shared between modules: {why}")]);
        }
    }

    fn say_waiting(&mut self, number: usize, job: &Job) {
        log::info!("{} for {}: will be built again alone", job.module, job.kernel);
        let (task, phase, at) = (Task::Job(number), Phase::Waiting, Instant::now());
        self.watch.event(&Event::Phase { task, step: &job.build, phase, at });
    }

    fn say_retry(&mut self, number: usize, job: &Job) {
        let Job { module, kernel, .. } = job;
        self.say_waiting(number, job);
        self.say(&[format!(
            "note: {module} for {kernel}: out of memory; will be retried alone after the other \
             builds"
        )]);
    }

    /// Reports the end of a build.
    ///
    /// Returns the record of the build if the module is to be installed. Returns `None` if the
    /// build failed or if the job only builds.
    fn end_build(
        &mut self,
        number: usize,
        job: &Job,
        result: Result<Box<Record>, Failure>,
        elapsed: Duration,
    ) -> Option<Box<Record>> {
        let (record, outcome) = match result {
            Ok(record) => (Some(record), Outcome::Done),
            Err(failed) => (None, Outcome::Failed(failed)),
        };
        let built = record.is_some();
        self.finish(Task::Job(number), &job.build, outcome, elapsed);
        if !built {
            self.skip_installation(number, job, "not built".into());
        }
        record.filter(|_| job.install.is_some())
    }

    /// Reports the modules that were built but are not installed because another module of their
    /// group failed.
    fn leave_together(&mut self, jobs: &[Job], decision: &Decision<'_>) {
        for (number, failed) in &decision.leave {
            let why = format!("replaced only together with {failed}, which failed");
            self.skip_installation(*number, &jobs[*number], why);
        }
    }

    /// Reports that a module is not installed because of `why`.
    fn skip_installation(&mut self, number: usize, job: &Job, why: String) {
        let Some(install) = job.install.as_ref().filter(|_| !self.is_stopped()) else { return };
        let task = Task::Job(number);
        self.watch.event(&Event::Started { task, step: install });
        // Another program may have regenerated an image without the module.
        let noted = pending_images::note(
            self.machine,
            self.facts,
            &job.kernel,
            &BTreeSet::new(),
            Durability::None,
        );
        let outcome = match noted {
            Ok(_) => Outcome::Skipped(why),
            Err(error) => Outcome::Failed(error.into()),
        };
        self.finish(task, install, outcome, Duration::ZERO);
    }

    /// Returns the fingerprint of the inputs of a job.
    fn inputs_of(&self, job: &Job) -> Digest {
        let pair = self.facts.pair(&job.module, &job.kernel);
        let inputs = pair.and_then(|pair| pair.inputs.clone());
        inputs.map_or_else(Digest::of_nothing, |inputs| {
            Inputs { depends: job.depends.clone(), ..inputs }.fingerprint()
        })
    }

    /// Returns true if the build of `job` can start. Otherwise reports its build and installation
    /// as skipped or failed.
    fn begin(&mut self, number: usize, job: &Job) -> bool {
        let task = Task::Job(number);
        self.watch.event(&Event::Started { task, step: &job.build });
        let broken = job.after.iter().find(|name| self.has_failed(name, &job.kernel));
        let hindrance = if self.not_registered.contains(&job.module) {
            Some(Outcome::Skipped("not added".into()))
        } else if let Some(name) = broken {
            Some(Outcome::Skipped(format!("dependency {name} failed")))
        } else if job.install.is_some() {
            // From here on, the installation is pending work.
            let inputs = self.inputs_of(job);
            let noted = self.note_install(&job.module, &job.kernel, inputs);
            noted.err().map(|error| Outcome::Failed(error.into()))
        } else {
            None
        };
        let Some(outcome) = hindrance else { return true };
        self.finish(task, &job.build, outcome, Duration::ZERO);
        self.skip_installation(number, job, "not built".into());
        false
    }
}

/// Evicts builds until the cache does not exceed its maximum size. First unpins the builds that
/// trial runs have pinned and whose modules are built now.
fn trim_cache(machine: &Machine) -> Result<(), FileError> {
    let cache = BuildCache::of(&machine.trees);
    cache.remove_pins(|entry| {
        machine.trees.built(&entry.module, &entry.kernel, &entry.arch).is_dir()
    })?;
    cache.trim(machine.settings.cache_size())
}

/// Creates two jobservers: one for the run, which allows `most` jobs, and one with a single token
/// for builds that are retried alone.
fn jobservers(machine: &Machine, most: usize) -> Result<(Jobserver, Jobserver), Failure> {
    let dir = machine.trees.workplaces();
    durable::create_dirs(&dir)?;
    Jobserver::create_in(&dir, most)
        .and_then(|it| Ok((it, Jobserver::create_in(&dir, 1)?)))
        .map_err(|error| Failure::transient(1, format!("cannot create a jobserver: {error}")))
}
