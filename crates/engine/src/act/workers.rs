//! The threads of a run: one for each running build, which holds a jobserver token, and one for all
//! installations.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use super::install_thread::{self, BuiltJob};
use super::job_order;
use super::panics::without_panic;
use super::worker_event::{Token, WorkerEvent};
use crate::building::{Attempt, Build, Shared, Tried};
use crate::conf::Confs;
use crate::dkms_tree::{Record, Workplace};
use crate::facts::{Facts, Pair};
use crate::failure::Failure;
use crate::machine::Machine;
use crate::names::{KernelRelease, ModuleId};
use crate::os::jobserver::Jobserver;
use crate::plan::Job;
use crate::report::Phase;

/// The maximum time to wait for a token while no build runs. If no token arrives in this time, the
/// jobserver's missing tokens count as lost.
const QUIET: Duration = Duration::from_secs(2);

/// The data shared by all builds of a run.
pub(super) struct BuildContext<'a> {
    machine: &'a Machine,
    facts: &'a Facts,
    confs: &'a Confs<'a>,
    /// The jobserver of the run. It has one token for each parallel job.
    jobserver: &'a Jobserver,
    /// The state that the builds of each module share.
    shared: BTreeMap<&'a ModuleId, Mutex<Shared>>,
    /// The number of objects that the run compiles for each kernel, according to the dkms.conf
    /// files.
    objects: BTreeMap<&'a KernelRelease, usize>,
}

impl<'a> BuildContext<'a> {
    /// Returns the context for the builds of `jobs`.
    pub(super) fn new(
        jobs: &'a [Job],
        machine: &'a Machine,
        facts: &'a Facts,
        confs: &'a Confs<'a>,
        jobserver: &'a Jobserver,
    ) -> Self {
        let mut objects = BTreeMap::new();
        for job in jobs.iter().filter(|job| !job.is_cached()) {
            let values = facts.pair(&job.module, &job.kernel).and_then(Pair::values);
            let named = values.map_or(0, |values| values.elements("BUILT_MODULE_NAME").count());
            *objects.entry(&job.kernel).or_default() += named.max(1);
        }
        let shared = jobs.iter().map(|job| (&job.module, Mutex::default())).collect();
        Self { machine, facts, confs, jobserver, shared, objects }
    }

    fn build<'b>(
        &'b self,
        job: &'b Job,
        attempt: Attempt,
        jobserver: &'b Jobserver,
        report: &'b dyn Fn(Phase),
        say: &'b dyn Fn(String),
    ) -> Result<Build<'b>, Failure> {
        let Job { module, kernel, depends, .. } = job;
        let known = self.facts.kernels.get(kernel).zip(self.shared.get(module));
        let no_kernel = || Failure::new(21, format!("no such kernel: {kernel}"));
        let (about, shared) = known.ok_or_else(no_kernel)?;
        let workplace = Workplace::of(self.machine, module, &about.kernel);
        Ok(Build {
            machine: self.machine,
            id: module,
            kernel: &about.kernel,
            depends,
            jobserver,
            report,
            say,
            cached: job.is_cached(),
            objects: self.objects.get(kernel).copied().unwrap_or_default(),
            workplace: match attempt {
                Attempt::Alone => workplace.with_machine_temporary(),
                Attempt::Only | Attempt::Beside => workplace,
            },
            shared,
            attempt,
            writes_source: job_order::shares_source(&module.name, self.facts, self.machine),
        })
    }
}

/// The running builds, and the thread that installs the built modules.
pub(super) struct Workers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    context: &'env BuildContext<'env>,
    sender: Sender<WorkerEvent>,
    receiver: Receiver<WorkerEvent>,
    /// The thread that installs modules; `None` if it could not be started.
    to_install: Option<Sender<BuiltJob<'env>>>,
    running: usize,
    settling: usize,
    installing: usize,
    asked: bool,
}

impl<'scope, 'env> Workers<'scope, 'env> {
    /// Starts the thread that installs modules. Starts no build.
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        context: &'env BuildContext<'env>,
    ) -> Self {
        let (sender, receiver) = channel();
        let (to_install, jobs) = channel();
        let tell = sender.clone();
        let BuildContext { machine, facts, confs, .. } = context;
        // The thread ends when `to_install` is dropped.
        let thread = move || install_thread::run(&jobs, &tell, machine, facts, confs);
        let started = Builder::new().spawn_scoped(scope, thread);
        let to_install =
            started.map_or_else(|error| no_thread(machine, &error), |_| Some(to_install));
        Self {
            scope,
            context,
            sender,
            receiver,
            to_install,
            running: 0,
            settling: 0,
            installing: 0,
            asked: false,
        }
    }

    /// Returns the number of running builds.
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// Requests a jobserver token for another build, unless a request is already outstanding. The
    /// token arrives as [`WorkerEvent::Token`].
    ///
    /// While builds run, makes no request if the jobserver may lack tokens or if no thread can be
    /// started to wait for a token. The caller must then repeat the request after the next event.
    pub(crate) fn ask_for_token(&mut self) {
        if self.asked {
            return;
        }
        if self.running == 0 {
            self.refill();
        } else if self.context.jobserver.may_lack_tokens() {
            return;
        }
        let (jobserver, sender) = (self.context.jobserver, self.sender.clone());
        // Sending fails only after the run has ended.
        let ask = move || drop(sender.send(WorkerEvent::Token(jobserver.acquire())));
        if let Err(error) = Builder::new().spawn_scoped(self.scope, ask) {
            no_thread::<()>(self.context.machine, &error);
            if self.running > 0 {
                return;
            }
            let _ = self.sender.send(WorkerEvent::Token(jobserver.acquire()));
        }
        self.asked = true;
    }

    /// Starts the build of job `number`. The build holds `token` until it ends.
    pub(crate) fn start(&mut self, number: usize, job: &'env Job, token: Token, attempt: Attempt) {
        self.start_with(self.context.jobserver, number, job, token, attempt);
    }

    /// Starts the build of job `number` with the only token of `jobserver`.
    pub(crate) fn start_alone(
        &mut self,
        number: usize,
        job: &'env Job,
        jobserver: &'env Jobserver,
        attempt: Attempt,
    ) {
        self.start_with(jobserver, number, job, jobserver.acquire(), attempt);
    }

    fn start_with(
        &mut self,
        jobserver: &'env Jobserver,
        number: usize,
        job: &'env Job,
        token: Token,
        attempt: Attempt,
    ) {
        let (context, sender) = (self.context, self.sender.clone());
        self.spawn_build(number, move || {
            let tell = |phase| drop(sender.send(WorkerEvent::Phase(number, phase, Instant::now())));
            let say = |line| drop(sender.send(WorkerEvent::Line(line)));
            let _token = token.map_err(|error| {
                Failure::transient(1, format!("cannot get a token from the jobserver: {error}"))
            })?;
            if context.machine.tools.stop.asked().is_some() {
                return Err(Failure::transient(1, "interrupted"));
            }
            let build = context.build(job, attempt, jobserver, &tell, &say)?;
            Ok(build.run(context.facts, context.confs))
        });
    }

    /// Runs a build in a thread. Its end arrives as [`WorkerEvent::Ended`], even if it panics.
    fn spawn_build(
        &mut self,
        number: usize,
        build: impl FnOnce() -> Result<Tried, Failure> + Send + 'scope,
    ) {
        self.running += 1;
        let sender = self.sender.clone();
        self.spawn(move || {
            let started = Instant::now();
            let tried = without_panic(build).unwrap_or_else(Tried::failed);
            let _ = sender.send(WorkerEvent::Ended(number, tried, started.elapsed()));
        });
    }

    /// [Settles](Build::settle) a build that ran beside others: confirms its record or records its
    /// failure. The result arrives as [`WorkerEvent::Settled`], together with `elapsed`.
    pub(crate) fn settle(
        &mut self,
        number: usize,
        job: &'env Job,
        tried: Tried,
        elapsed: Duration,
    ) {
        self.settling += 1;
        let (context, sender) = (self.context, self.sender.clone());
        let settled =
            move |result| drop(sender.send(WorkerEvent::Settled(number, result, elapsed)));
        if tried.inputs.is_none() {
            return settled(tried.result);
        }
        self.spawn(move || {
            settled(without_panic(|| {
                context
                    .build(job, Attempt::Beside, context.jobserver, &|_| {}, &|_| {})?
                    .settle(tried)
            }));
        });
    }

    /// Runs `work` in a new thread or, if no thread can be started, in this one.
    fn spawn(&self, work: impl FnOnce() + Send + 'scope) {
        // A closure is lost if its thread cannot be started, so send `work` only after the thread
        // has started.
        let (give, take) = channel::<Box<dyn FnOnce() + Send + 'scope>>();
        match Builder::new().spawn_scoped(self.scope, move || take.recv().map_or((), |work| work()))
        {
            Ok(_) => drop(give.send(Box::new(work))),
            Err(error) => {
                no_thread::<()>(self.context.machine, &error);
                work();
            }
        }
    }

    /// Queues job `number` for installation. `record` is the record of its build.
    pub(crate) fn install(&mut self, number: usize, job: &'env Job, record: Box<Record>) {
        self.installing += 1;
        let BuildContext { machine, facts, confs, .. } = self.context;
        let job = (number, job, record);
        match &self.to_install {
            // Sending cannot fail, since the thread receives as long as `self` exists.
            Some(thread) => drop(thread.send(job)),
            None => install_thread::install(job, &self.sender, machine, facts, confs),
        }
    }

    /// Waits for the next event and returns it. Returns `None` if no build, installation or token
    /// request is outstanding.
    ///
    /// A killed make does not return its tokens. After a make has been killed, this function
    /// returns no token until all builds have ended, so that the jobserver can be refilled. It
    /// refills the jobserver if no build runs and no token arrives within [`QUIET`], or at once
    /// after a request to stop.
    pub(crate) fn wait(&mut self) -> Option<WorkerEvent> {
        while self.running + self.settling + self.installing > 0 || self.asked {
            let stopped = self.context.machine.tools.stop.asked().is_some();
            let only_token = self.running == 0 && self.asked;
            let patience = if stopped && only_token { Duration::ZERO } else { QUIET };
            match self.receiver.recv_timeout(patience) {
                Ok(WorkerEvent::Token(_))
                    if self.running > 0 && self.context.jobserver.may_lack_tokens() =>
                {
                    self.asked = false;
                }
                Ok(news) => return Some(self.note(news)),
                Err(RecvTimeoutError::Timeout) if only_token => self.refill(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }

    /// Fills the jobserver with its tokens again. No build runs, so each missing token was lost
    /// with a killed make.
    fn refill(&self) {
        if let Err(error) = self.context.jobserver.refill() {
            log::warn!("cannot return tokens to the jobserver: {error}");
        }
    }

    fn note(&mut self, news: WorkerEvent) -> WorkerEvent {
        match news {
            WorkerEvent::Token(_) => self.asked = false,
            WorkerEvent::Phase(..) | WorkerEvent::Installing(_) | WorkerEvent::Line(_) => {}
            WorkerEvent::Ended(..) => self.running -= 1,
            WorkerEvent::Settled(..) => self.settling -= 1,
            WorkerEvent::Installed(..) => self.installing -= 1,
        }
        news
    }
}

/// Warns that a thread could not be started. Its work is done in the main thread.
fn no_thread<T>(machine: &Machine, error: &std::io::Error) -> Option<T> {
    machine.warnings.add(format!("fewer builds run in parallel: cannot start a thread: {error}"));
    None
}

#[cfg(test)]
mod tests;
