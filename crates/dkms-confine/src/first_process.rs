//! The first process of the namespaces, which starts the program and reports the processes that the
//! program leaves running.

use std::env;
use std::fs;
use std::io;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::arguments::Arguments;
use crate::mounts::mount_proc;
use crate::program::{SIGNALLED, cannot_run, command, complain};

/// The time in which background processes can still end after their program has ended. For example,
/// a `tee` that the program started may not have written the last lines yet.
const GRACE: Duration = Duration::from_millis(200);

/// Runs the program, and returns its exit code.
///
/// When this process ends, the kernel kills all other processes of the pid namespace
/// (pid_namespaces(7)). This function prints their names first, so that users can find out why a
/// daemon is gone.
pub(crate) fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    if arguments.own_mounts {
        mount_proc(arguments);
    }
    if let Some(dir) = &arguments.cwd {
        env::set_current_dir(dir)?;
    }
    let program = &arguments.program;
    let child = match command(program, &arguments.words).spawn() {
        Ok(child) => child,
        Err(error) => return Ok(cannot_run(program, &error)),
    };
    let code = wait_for(Pid::from_raw(child.id().cast_signed()))?;
    if !is_alone(Instant::now() + GRACE) {
        let left = children().join(", ");
        let name = program.file_name().unwrap_or_default().display();
        complain(&format!("{name}: ended its background processes: {left}"));
    }
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Waits until the process `program` has ended, and returns its exit code. Also reaps processes
/// that have lost their parent, as the first process of a pid namespace must.
fn wait_for(program: Pid) -> io::Result<i32> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => return Ok(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                return Ok(SIGNALLED + signal as i32);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits until all other processes have ended, but not longer than until `until`. Returns true if
/// they have ended.
fn is_alone(until: Instant) -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() >= until => return false,
            Ok(WaitStatus::StillAlive) => sleep(Duration::from_millis(5)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return true,
        }
    }
}

/// Returns the names of this process's children; empty if /proc does not list them.
fn children() -> Vec<String> {
    let pids = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let name = |pid| fs::read_to_string(format!("/proc/{pid}/comm"));
    pids.split_whitespace()
        .filter_map(|pid| name(pid).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}
