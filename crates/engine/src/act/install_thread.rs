//! The thread that installs built modules, so that a slow script or disk delays no build.

use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use super::installer::Installer;
use super::panics::without_panic;
use super::worker_event::WorkerEvent;
use crate::conf::Confs;
use crate::dkms_tree::Record;
use crate::facts::Facts;
use crate::installing::BuiltModule;
use crate::machine::Machine;
use crate::plan::{Action, Job, Step};

/// The number of a job, the job, and the record of its finished build.
pub(super) type BuiltJob<'a> = (usize, &'a Job, Box<Record>);

/// Installs jobs in the order in which they arrive, until the sender is dropped.
pub(super) fn run(
    jobs: &Receiver<BuiltJob<'_>>,
    tell: &Sender<WorkerEvent>,
    machine: &Machine,
    facts: &Facts,
    confs: &Confs<'_>,
) {
    for job in jobs {
        install(job, tell, machine, facts, confs);
    }
}

/// Installs one job. After a request to stop, only reports the end of the job.
pub(super) fn install(
    (number, job, record): BuiltJob<'_>,
    tell: &Sender<WorkerEvent>,
    machine: &Machine,
    facts: &Facts,
    confs: &Confs<'_>,
) {
    // Sending fails only after the run has ended.
    let send = |event| drop(tell.send(event));
    let mut say = |line: &str| send(WorkerEvent::Line(line.to_owned()));
    let mut installer = Installer::new(machine, facts, confs, &mut say);
    let started = Instant::now();
    let stopped = machine.tools.stop.asked().is_some();
    let result = match &job.install {
        Some(Step { action: Action::Install { module, kernel, replaces }, .. }) if !stopped => {
            send(WorkerEvent::Installing(number));
            let new = BuiltModule::of(machine, module, kernel, Some(*record));
            Some(without_panic(|| installer.install(new, replaces.as_ref())))
        }
        _ => None,
    };
    send(WorkerEvent::Installed(number, result, started.elapsed()));
}
