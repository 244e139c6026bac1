//! Builds side by side: which may start, with whose token, and what came of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use crate::build::Build;
use crate::confs::Confs;
use crate::digest::Digest;
use crate::facts::Facts;
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::plan::{Action, Plan, Step};
use crate::report::{Failed, Phase};
use crate::site::Site;

/// How long every build must have been waiting before the tokens count as lost: long enough for
/// threads to get going on a machine that is busy.
const QUIET: Duration = Duration::from_secs(2);

/// A module to be built for a kernel, and what is done with the result.
pub(crate) struct Job<'a> {
    /// The step that builds.
    pub step: &'a Step,
    /// The step that installs, if it is to be installed.
    pub install: Option<&'a Step>,
    /// The module.
    pub module: &'a ModuleId,
    /// For this kernel.
    pub kernel: &'a KernelRelease,
    /// What has to be built and installed before.
    pub after: &'a [ModuleName],
    depends: &'a BTreeMap<ModuleName, Digest>,
}

/// The jobs of a plan, those that took longest in earlier builds first: what is started last
/// should be short, or one processor works on while the others are idle.
pub(crate) fn jobs<'a>(plan: &'a Plan, facts: &Facts) -> Vec<Job<'a>> {
    let mut jobs: Vec<Job<'a>> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Build { module, kernel, after, depends } => {
                let install = plan.steps.iter().find(|other| {
                    matches!(&other.action, Action::Install { module: m, kernel: k, .. }
                        if m == module && k == kernel)
                });
                Some(Job { step, install, module, kernel, after, depends })
            }
            _ => None,
        })
        .collect();
    let lasts = |job: &Job<'_>| match job.step.is_cached() {
        true => 0,
        false => seconds(facts, &job.module.name),
    };
    jobs.sort_by_key(|job| std::cmp::Reverse(lasts(job)));
    jobs
}

/// How long a module took at most; what never was built may take long.
fn seconds(facts: &Facts, name: &ModuleName) -> u64 {
    let pairs = facts.versions(name).flat_map(|(_, module)| module.pairs.values());
    let records = pairs.filter_map(|pair| pair.built.as_ref()?.record.as_ref());
    records.map(|record| record.build_seconds).max().unwrap_or(u64::MAX)
}

/// What came of a job: its number, how it ended, how long it took.
pub(crate) type Ended = (usize, Result<(), Failed>, Duration);

/// What a build tells while it runs, under the number of its job.
enum Word {
    /// It came to another phase at that time.
    Phase(usize, Phase, Instant),
    /// It is over.
    Ended(Ended),
}

/// The builds that run.
pub(crate) struct Crew<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    site: &'env Site,
    facts: &'env Facts,
    client: &'env jobserver::Client,
    /// Builds that have their token.
    active: &'env AtomicUsize,
    sender: Sender<Word>,
    receiver: Receiver<Word>,
    running: usize,
}

impl<'scope, 'env> Crew<'scope, 'env> {
    /// A crew without work. `client` holds a token for each job that may run at once; every build
    /// takes one before it starts, for the one job that make counts as its own.
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        site: &'env Site,
        facts: &'env Facts,
        client: &'env jobserver::Client,
        active: &'env AtomicUsize,
    ) -> Self {
        let (sender, receiver) = channel();
        Self { scope, site, facts, client, active, sender, receiver, running: 0 }
    }

    /// How many builds were started and have not ended.
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// Starts a build; its end is told by [`Crew::wait`] under `number`.
    pub(crate) fn start(&mut self, number: usize, job: &Job<'env>) {
        let (site, facts, client, active) = (self.site, self.facts, self.client, self.active);
        let (module, kernel, depends) = (job.module, job.kernel, job.depends);
        let cached = job.step.is_cached();
        let sender = self.sender.clone();
        self.running += 1;
        self.scope.spawn(move || {
            let token = client.acquire();
            active.fetch_add(1, Ordering::SeqCst);
            let started = Instant::now();
            // Nobody listens any more only if the whole run has ended.
            let tell = |phase| {
                let _ = sender.send(Word::Phase(number, phase, Instant::now()));
            };
            let built = match (token, facts.kernels.get(kernel)) {
                (Err(error), _) => Err(Failed {
                    passing: true,
                    ..Failed::new(1, format!("cannot get a token of the jobserver: {error}"))
                }),
                (Ok(_), _) if site.tools.stop.asked().is_some() => {
                    Err(Failed { passing: true, ..Failed::new(1, "interrupted") })
                }
                (Ok(_), None) => Err(Failed::new(21, format!("there is no kernel {kernel}"))),
                (Ok(_token), Some(about)) => {
                    let kernel = &about.kernel;
                    let tell = &tell;
                    Build { site, id: module, kernel, depends, jobserver: client, tell, cached }
                        .run(facts, &mut Confs::new(site))
                }
            };
            active.fetch_sub(1, Ordering::SeqCst);
            let _ = sender.send(Word::Ended((number, built, started.elapsed())));
        });
    }

    /// Waits for the next build to end; nothing if none is running. Until then `hear` is told
    /// which build came to which phase at what time.
    ///
    /// make does not give tokens back when it is killed. If all are lost and every build waits
    /// for one, a new one is made.
    pub(crate) fn wait(&mut self, mut hear: impl FnMut(usize, Phase, Instant)) -> Option<Ended> {
        while self.running > 0 {
            match self.receiver.recv_timeout(QUIET) {
                Ok(Word::Phase(number, phase, at)) => hear(number, phase, at),
                Ok(Word::Ended(ended)) => {
                    self.running -= 1;
                    return Some(ended);
                }
                Err(RecvTimeoutError::Timeout) if self.active.load(Ordering::SeqCst) == 0 => {
                    if let Err(error) = self.client.release_raw() {
                        log::warn!("the jobserver takes no token: {error}");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }
}
