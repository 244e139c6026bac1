//! A running program, which can be watched and killed with its descendants.

use std::fs;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::confinement::Bond;
use super::descendants::Mark;

/// The time limit for a pid namespace to end after its first process has been killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// A running program in its own process group.
///
/// Dropping the value kills the program and its descendants, unless [`Running::reap`] has returned.
pub(crate) struct Running {
    /// The process that was started: the program itself or, if it is confined, its wrapper.
    pub(crate) child: Child,
    ended: PipeReader,
    bond: Bond,
    mark: Option<Mark>,
    reaped: bool,
}

impl Running {
    /// Starts a child with `spawn`, and a thread that waits for the child to end.
    pub(super) fn watch(
        bond: Bond,
        mark: Option<Mark>,
        spawn: impl FnOnce() -> io::Result<Child>,
    ) -> io::Result<Self> {
        let (ended, open_until_end) = io::pipe()?;
        let running = Self { child: spawn()?, ended, bond, mark, reaped: false };
        let pid = pid_of(&running.child);
        // Waits without reaping the child. While the child is a zombie, the kernel reuses neither
        // its pid nor its process group, so signals to them cannot reach other processes. The pipe
        // closes when the thread ends.
        let wait = move || {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(pid), flags) == Err(Errno::EINTR) {}
            drop(open_until_end);
        };
        thread::Builder::new().name("wait".into()).stack_size(64 * 1024).spawn(wait)?;
        Ok(running)
    }

    /// Returns a descriptor for `poll` that becomes ready when the program ends.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Kills the program and its descendants.
    ///
    /// The descendants are the processes in the program's process group, and those in its pid
    /// namespace or with its mark.
    pub(crate) fn kill(&mut self) {
        if self.reaped {
            return;
        }
        if self.bond == Bond::Namespace {
            // The wrapper waits for the first process of the namespace, which ends only after all
            // others have ended. When the wrapper has ended, the namespace is therefore empty.
            let first = self.children();
            for child in &first {
                let _ = kill(*child, Signal::SIGKILL);
            }
            if !first.is_empty() {
                let until = Some(Instant::now() + KILL_TIMEOUT);
                let _ = ready(&[(self.ended(), PollFlags::POLLIN)], until);
            }
        }
        self.kill_rest();
    }

    /// Kills the remaining processes in the program's process group and those with its mark, even
    /// if the program itself has already ended.
    pub(super) fn kill_rest(&mut self) {
        if !self.reaped {
            let _ = killpg(pid_of(&self.child), Signal::SIGKILL);
        }
        if let Some(mark) = &self.mark {
            mark.kill_all();
        }
    }

    /// Waits for the program to end and returns its exit status.
    pub(super) fn reap(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.reaped = true;
        Ok(status)
    }

    /// Returns the pids of the child's own children; empty if /proc does not list them.
    fn children(&self) -> Vec<Pid> {
        let pid = self.child.id();
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let numbers = list.unwrap_or_default();
        numbers.split_whitespace().filter_map(|n| n.parse().ok()).map(Pid::from_raw).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.reap();
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    // This cannot overflow, because the kernel's maximum pid is 2^22.
    Pid::from_raw(child.id().cast_signed())
}

/// Waits until at least one of the descriptors is ready, or until the time `until`.
///
/// Returns one value for each descriptor: true if it is ready. After a timeout, all values are
/// false.
pub(crate) fn ready(
    fds: &[(BorrowedFd<'_>, PollFlags)],
    until: Option<Instant>,
) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = fds.iter().map(|(fd, what)| PollFd::new(*fd, *what)).collect();
    loop {
        let timeout = match until {
            None => PollTimeout::NONE,
            Some(until) => {
                // Round up, or the last millisecond would be a busy loop.
                let left = until.saturating_duration_since(Instant::now());
                let left = left.as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut polled, timeout) {
            Ok(0) if until.is_some_and(|until| Instant::now() < until) => {}
            Ok(_) => return Ok(polled.iter().map(|fd| fd.any().unwrap_or(true)).collect()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
