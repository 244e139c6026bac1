//! Runs a worker under the lock, with scratch space that is gone afterwards.

use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use dkms_engine::machine::{Lock, Machine};
use dkms_engine::os::durable;

use crate::not_tried::NotTried;
use crate::scratch::SCRATCH;
use crate::supervisor::{Ending, Supervisor};
use crate::worker::WorkerJob;

/// The flag with which the hook's program calls itself as a worker.
pub const WORKER: &str = "--worker";

/// Runs the worker for `job`, and returns how it ended. Afterwards this process can start no other
/// process.
///
/// The lock is held until the scratch space is gone.
pub(crate) fn run_worker(
    machine: &Machine,
    lock: Lock,
    supervisor: &Supervisor,
    job: &WorkerJob,
) -> Result<Ending, NotTried> {
    let scratch = machine.trees.dkms.join(SCRATCH);
    // A killed preflight may have left it behind.
    durable::remove_tree(&scratch)?;
    durable::create_dirs(&scratch)?;
    let ending = supervise(supervisor, job);
    durable::remove_tree(&scratch)?;
    drop(lock);
    ending
}

#[expect(clippy::disallowed_methods, reason = "the supervisor bounds the worker")]
fn supervise(supervisor: &Supervisor, job: &WorkerJob) -> Result<Ending, NotTried> {
    let failed = |error: &io::Error| NotTried::new(format!("cannot start the worker: {error}"));
    let job_text = serde_json::to_vec(job).map_err(|error| failed(&io::Error::from(error)))?;
    let this = env::current_exe().map_err(|error| failed(&error))?;
    let mut worker = Command::new(this);
    worker.arg(WORKER);
    await_threads();
    supervisor.run(worker, &job_text).map_err(|error| failed(&error))
}

/// Waits until the threads that wait for child processes have ended, because the supervisor must be
/// single-threaded. They end soon after their child processes.
fn await_threads() {
    let until = Instant::now() + Duration::from_secs(5);
    let threads = || fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    while threads() > 1 && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the worker's exit code; an error if it was killed.
pub(crate) fn exit_code(ending: Ending) -> Result<i32, NotTried> {
    Err(NotTried::new(match ending {
        Ending::Exited(code) => return Ok(code),
        Ending::Killed(signal) => format!("the worker was killed (signal {signal})"),
        Ending::TimedOut => {
            "it took too long ([preflight] timeout in /etc/dkms/alpm-dkms.toml)".to_owned()
        }
        Ending::PacmanEnded => "pacman has ended".to_owned(),
        Ending::Interrupted(signal) => format!("interrupted by {signal}"),
    }))
}
