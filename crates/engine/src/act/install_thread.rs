//! The thread that installs what was built: a slow script or disk delays no build.

use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use super::installer::Installer;
use super::worker_event::WorkerEvent;
use crate::conf::Confs;
use crate::facts::Facts;
use crate::machine::Machine;
use crate::plan::{Action, Job, Step};

/// Installs jobs, each with its number, in the order in which they arrive, until none can come any
/// more. What is to be installed when the run is asked to end is not begun.
pub(super) fn run(
    jobs: &Receiver<(usize, &Job)>,
    tell: &Sender<WorkerEvent>,
    machine: &Machine,
    facts: &Facts,
    confs: &Confs<'_>,
) {
    // Nobody listens any more only if the whole run has ended.
    let send = |event| drop(tell.send(event));
    let mut say = |line: &str| send(WorkerEvent::Says(line.to_owned()));
    let mut installer = Installer::new(machine, facts, confs, &mut say);
    for (number, job) in jobs {
        let started = Instant::now();
        let stopped = machine.tools.stop.asked().is_some();
        let result = match &job.install {
            Some(Step { action: Action::Install { module, kernel, replaces }, .. }) if !stopped => {
                send(WorkerEvent::Installing(number));
                Some(installer.install(module, kernel, replaces.as_ref()))
            }
            _ => None,
        };
        send(WorkerEvent::Installed(number, result, started.elapsed()));
    }
}
