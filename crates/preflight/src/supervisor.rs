//! Starts the worker of a preflight, and ends it when pacman or the user no longer waits for it.
//!
//! The supervisor is small, because a PreTransaction hook that fails by accident aborts the
//! transaction. The supervisor runs in the machine's own mount namespace and needs nothing but
//! system calls.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The way in which a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The worker exited with this status.
    Exited(i32),
    /// A signal with this number killed the worker. The OOM killer, for example, sends SIGKILL.
    Killed(i32),
    /// The worker was killed because it took too long.
    TimedOut,
    /// The worker was killed because pacman has ended.
    PacmanEnded,
    /// The worker was killed because the supervisor received this signal.
    Interrupted(Signal),
}

/// The settings for running a worker in a pid namespace of its own.
///
/// When the worker ends or is killed, the kernel kills all processes that the worker has started
/// (pid_namespaces(7)).
pub(crate) struct Supervisor {
    /// The process ID of pacman, if known.
    pub(crate) pacman: Option<u32>,
    /// The time that the worker may take; `Duration::MAX` for no limit.
    pub(crate) timeout: Duration,
}

impl Supervisor {
    /// Runs `worker`, which reads `input` from standard input, and returns how the worker ended.
    /// The worker shares the standard output and standard error of this process.
    ///
    /// This process must have only one thread. Afterwards, it cannot start any other process.
    ///
    /// # Errors
    /// An I/O error if the worker cannot be started, for example because the machine allows no
    /// namespaces.
    pub(crate) fn run(&self, mut worker: Command, input: &[u8]) -> io::Result<Ending> {
        let signals = receive_signals()?;
        let pacman = self.pacman.map(open_process).transpose()?;
        unshare(CloneFlags::CLONE_NEWPID)?;
        let mut child = worker.stdin(in_memory(input)?).spawn()?;
        let ending = self.wait(&mut child, &signals, pacman.as_ref());
        if !matches!(ending, Ok(Ending::Exited(_) | Ending::Killed(_))) {
            // The worker may already have ended by itself.
            let _ = child.kill();
            child.wait()?;
        }
        ending
    }

    fn wait(
        &self,
        child: &mut Child,
        signals: &SignalFd,
        pacman: Option<&OwnedFd>,
    ) -> io::Result<Ending> {
        let worker = open_process(child.id())?;
        let until = Instant::now().checked_add(self.timeout);
        loop {
            let mut fds = vec![
                PollFd::new(worker.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(pacman.map(|pacman| PollFd::new(pacman.as_fd(), PollFlags::POLLIN)));
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match poll(&mut fds, left.map_or(PollTimeout::NONE, poll_timeout)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
            if ready.next() == Some(true) {
                return Ok(ending(child.wait()?));
            }
            if ready.next() == Some(true)
                && let Some(signal) = signals.read_signal()?
            {
                let signal = i32::try_from(signal.ssi_signo).unwrap_or_default();
                return Ok(Ending::Interrupted(signal.try_into().unwrap_or(Signal::SIGTERM)));
            }
            if ready.next() == Some(true) {
                return Ok(Ending::PacmanEnded);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(Ending::TimedOut);
            }
        }
    }
}

fn ending(status: ExitStatus) -> Ending {
    match status.code() {
        Some(code) => Ending::Exited(code),
        None => Ending::Killed(status.signal().unwrap_or_default()),
    }
}

/// The signals that ask a process to end.
fn ending_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT])
}

/// Blocks the signals that ask this process to end, until [`Supervisor::run`] receives them.
pub(crate) fn block_signals() {
    // The call fails only for an invalid argument (pthread_sigmask(3)).
    let _ = ending_signals().thread_block();
}

/// Blocks the signals that ask a process to end, and returns the descriptor that receives them.
/// Rust's standard library unblocks all signals in the processes that it starts.
fn receive_signals() -> io::Result<SignalFd> {
    let signals = ending_signals();
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Returns a descriptor that becomes readable when the process ends (pidfd_open(2)).
fn open_process(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Returns a file in memory with this content, as the standard input of a process. Unlike a pipe,
/// the file accepts any number of bytes at once.
pub(crate) fn in_memory(content: &[u8]) -> io::Result<Stdio> {
    let mut file = fs::File::from(memfd_create("input", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

/// Returns the timeout for poll(2), rounded up to milliseconds. If `left` exceeds the maximum
/// timeout, the caller must poll again.
fn poll_timeout(left: Duration) -> PollTimeout {
    let millis = left.as_millis().saturating_add(1);
    PollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests;
