//! A started program: notices its end, and ends it with all that it started.

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

/// How long a pid namespace gets to die after its first process was killed.
const DYING: Duration = Duration::from_secs(2);

/// A program that was started in a process group of its own. Dropping it kills it.
pub(crate) struct Running {
    /// The child, with those of its standard streams that are pipes.
    pub(crate) child: Child,
    ended: PipeReader,
    bond: Bond,
    mark: Option<Mark>,
    reaped: bool,
}

impl Running {
    /// Starts what `spawn` starts, and a thread that waits for its end.
    pub(super) fn watch(
        bond: Bond,
        mark: Option<Mark>,
        spawn: impl FnOnce() -> io::Result<Child>,
    ) -> io::Result<Self> {
        let (ended, until_then) = io::pipe()?;
        let running = Self { child: spawn()?, ended, bond, mark, reaped: false };
        let pid = pid_of(&running.child);
        // Only waits, does not reap: while the child is a zombie, its number and its group's
        // belong to nobody else, so that killing them is safe. The pipe closes with the thread.
        let wait = move || {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(pid), flags) == Err(Errno::EINTR) {}
            drop(until_then);
        };
        thread::Builder::new().name("wait".into()).stack_size(64 * 1024).spawn(wait)?;
        Ok(running)
    }

    /// Becomes readable (hangs up) when the program has ended.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Ends the program and what it started: its pid namespace where it has one, else what bears
    /// its mark, its process group in any case.
    pub(crate) fn kill(&mut self) {
        if self.reaped {
            return;
        }
        if self.bond == Bond::Namespace {
            // unshare waits for the namespace's first process, and the kernel ends that one only
            // after all others in there: when unshare has ended, nothing is left.
            let first = self.children();
            for child in &first {
                let _ = kill(*child, Signal::SIGKILL);
            }
            if !first.is_empty() {
                let _ = ready(&[(self.ended(), PollFlags::POLLIN)], Some(Instant::now() + DYING));
            }
        }
        self.kill_rest();
    }

    /// Ends what is left in the program's process group, and what bears its mark: also of a
    /// program that has ended by itself and left a daemon.
    pub(super) fn kill_rest(&mut self) {
        if !self.reaped {
            let _ = killpg(pid_of(&self.child), Signal::SIGKILL);
        }
        if let Some(mark) = &self.mark {
            mark.kill_all();
        }
    }

    /// Waits for the program's end.
    pub(super) fn reap(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.reaped = true;
        Ok(status)
    }

    /// Returns the children of the program's first process, as far as /proc lists them.
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
    // A pid fits: the kernel's own limit is 2^22.
    Pid::from_raw(child.id().cast_signed())
}

/// Waits until one of the descriptors is ready, at most until `until`, and returns which are. None is
/// if the time is over.
pub(crate) fn ready(
    fds: &[(BorrowedFd<'_>, PollFlags)],
    until: Option<Instant>,
) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = fds.iter().map(|(fd, what)| PollFd::new(*fd, *what)).collect();
    loop {
        let timeout = match until {
            None => PollTimeout::NONE,
            Some(until) => {
                // Rounded up, or the last millisecond would be spent spinning.
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
