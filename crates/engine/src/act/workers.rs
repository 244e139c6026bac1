//! The threads of a run: one for each running build, with a jobserver token, and one for all
//! installations.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::install_thread::{self, BuiltJob};
use super::worker_event::{Token, WorkerEvent};
use crate::building::{Build, Shared};
use crate::conf::Confs;
use crate::dkms_tree::{Record, Workplace};
use crate::facts::{Facts, Pair};
use crate::failure::Failure;
use crate::machine::Machine;
use crate::names::{KernelRelease, ModuleId};
use crate::plan::Job;

/// The maximum time to wait for a token while no build runs. If none arrives, the tokens of the
/// jobserver count as lost.
const QUIET: Duration = Duration::from_secs(2);

/// The data shared by all builds of a run.
pub(super) struct BuildContext<'a> {
    machine: &'a Machine,
    facts: &'a Facts,
    confs: &'a Confs<'a>,
    /// The jobserver of the run. It has one token for each parallel job.
    client: &'a jobserver::Client,
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
        client: &'a jobserver::Client,
    ) -> Self {
        let mut objects = BTreeMap::new();
        for job in jobs.iter().filter(|job| !job.is_cached()) {
            let values = facts.pair(&job.module, &job.kernel).and_then(Pair::values);
            let named = values.map_or(0, |values| values.elements("BUILT_MODULE_NAME").count());
            *objects.entry(&job.kernel).or_default() += named.max(1);
        }
        let shared = jobs.iter().map(|job| (&job.module, Mutex::default())).collect();
        Self { machine, facts, confs, client, shared, objects }
    }
}

/// The running builds, and the thread that installs the built modules.
pub(super) struct Workers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    context: &'env BuildContext<'env>,
    sender: Sender<WorkerEvent>,
    receiver: Receiver<WorkerEvent>,
    to_install: Sender<BuiltJob<'env>>,
    running: usize,
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
        scope.spawn(move || install_thread::run(&jobs, &tell, machine, facts, confs));
        Self {
            scope,
            context,
            sender,
            receiver,
            to_install,
            running: 0,
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
    pub(crate) fn ask_for_token(&mut self) {
        if !self.asked {
            self.asked = true;
            let (client, sender) = (self.context.client, self.sender.clone());
            // Sending fails only after the run has ended.
            self.scope.spawn(move || drop(sender.send(WorkerEvent::Token(client.acquire()))));
        }
    }

    /// Starts the build of job `number`. The build holds `token` until it ends.
    pub(crate) fn start(&mut self, number: usize, job: &'env Job, token: Token) {
        self.start_with(self.context.client, number, job, token);
    }

    /// Starts the build of job `number` with the only token of `client`.
    pub(crate) fn start_alone(
        &mut self,
        number: usize,
        job: &'env Job,
        client: &'env jobserver::Client,
    ) {
        self.start_with(client, number, job, client.acquire());
    }

    fn start_with(
        &mut self,
        client: &'env jobserver::Client,
        number: usize,
        job: &'env Job,
        token: Token,
    ) {
        let BuildContext { machine, facts, confs, .. } = self.context;
        let Job { module, kernel, depends, .. } = job;
        let cached = job.is_cached();
        let objects = self.context.objects.get(kernel).copied().unwrap_or_default();
        let (shared, sender) = (&self.context.shared[module], self.sender.clone());
        self.running += 1;
        self.scope.spawn(move || {
            let started = Instant::now();
            let tell = |phase| drop(sender.send(WorkerEvent::Phase(number, phase, Instant::now())));
            let say = |line| drop(sender.send(WorkerEvent::Says(line)));
            let built = match (token, facts.kernels.get(kernel)) {
                (Err(error), _) => Err(Failure::transient(
                    1,
                    format!("cannot get a token from the jobserver: {error}"),
                )),
                (Ok(_), _) if machine.tools.stop.asked().is_some() => {
                    Err(Failure::transient(1, "interrupted"))
                }
                (Ok(_), None) => Err(Failure::new(21, format!("no such kernel: {kernel}"))),
                (Ok(_token), Some(about)) => {
                    let kernel = &about.kernel;
                    let workplace = Workplace::of(machine, module, kernel);
                    Build {
                        machine,
                        id: module,
                        kernel,
                        depends,
                        jobserver: client,
                        workplace,
                        shared,
                        report: &tell,
                        say: &say,
                        cached,
                        objects,
                    }
                    .run(facts, confs)
                    .map(Box::new)
                }
            };
            let _ = sender.send(WorkerEvent::Ended(number, built, started.elapsed()));
        });
    }

    /// Queues job `number` for installation. `record` is the record of its build.
    pub(crate) fn install(&mut self, number: usize, job: &'env Job, record: Box<Record>) {
        self.installing += 1;
        // Sending cannot fail, since the thread receives as long as `self` exists.
        let _ = self.to_install.send((number, job, record));
    }

    /// Waits for the next event and returns it. Returns `None` if no build, installation or token
    /// request is outstanding.
    ///
    /// A killed make does not return its tokens. If no token arrives within [`QUIET`] while no
    /// build runs, this function adds a token to the jobserver. After a request to stop, it does so
    /// at once.
    pub(crate) fn wait(&mut self) -> Option<WorkerEvent> {
        while self.running > 0 || self.installing > 0 || self.asked {
            let stopped = self.context.machine.tools.stop.asked().is_some();
            let only_token = self.running == 0 && self.asked;
            let patience = if stopped && only_token { Duration::ZERO } else { QUIET };
            match self.receiver.recv_timeout(patience) {
                Ok(news) => return Some(self.note(news)),
                Err(RecvTimeoutError::Timeout) if only_token => {
                    if let Err(error) = self.context.client.release_raw() {
                        log::warn!("cannot return a token to the jobserver: {error}");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }

    fn note(&mut self, news: WorkerEvent) -> WorkerEvent {
        match news {
            WorkerEvent::Token(_) => self.asked = false,
            WorkerEvent::Phase(..) | WorkerEvent::Installing(_) | WorkerEvent::Says(_) => {}
            WorkerEvent::Ended(..) => self.running -= 1,
            WorkerEvent::Installed(..) => self.installing -= 1,
        }
        news
    }
}
