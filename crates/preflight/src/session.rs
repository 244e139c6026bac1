//! Runs a worker with scratch space, and removes the scratch space afterwards.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use crate::not_tried::NotTried;
use crate::scratch_dir::ScratchDir;
use crate::supervisor::{Ending, Supervisor};
use crate::worker::{Purpose, WorkerJob};

/// The flag with which the hook's program calls itself as a worker.
pub const WORKER: &str = "--worker";

/// Runs a worker on the machine at `root`, and returns how the worker ended. Afterwards, this
/// process cannot start any other process.
pub(crate) fn run_worker(
    root: PathBuf,
    scratch: ScratchDir,
    supervisor: &Supervisor,
    purpose: Purpose,
) -> Result<Ending, NotTried> {
    let job = WorkerJob { root, scratch: scratch.path().to_owned(), purpose };
    let ending = supervise(supervisor, &job);
    scratch.remove()?;
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
/// single-threaded. These threads end soon after their child processes.
fn await_threads() {
    let until = Instant::now() + Duration::from_secs(5);
    let threads = || fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    while threads() > 1 && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the worker's exit code, or an error if the worker was killed.
pub(crate) fn exit_code(ending: Ending) -> Result<i32, NotTried> {
    Err(NotTried::new(match ending {
        Ending::Exited(code) => return Ok(code),
        Ending::Killed(signal) => format!("the worker was killed (signal {signal})"),
        Ending::TimedOut => {
            "timed out ([preflight] timeout in /etc/dkms/alpm-dkms.toml)".to_owned()
        }
        Ending::PacmanEnded => "pacman has ended".to_owned(),
        Ending::Interrupted(signal) => format!("interrupted by {signal}"),
    }))
}
