//! Receives SIGINT, SIGTERM and SIGHUP, which ask a run to end.

use std::fs;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use nix::sys::signal::Signal;
use signal_hook::{flag, low_level::pipe};

/// The signals sent by Ctrl-C, by `kill` or a shutdown, and by a terminal that is closed.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// A request to end this run, made by a signal. All clones share it.
///
/// After a request, [`Program::run`](super::Program::run) kills confined programs, and the run ends
/// before its next step. Until [`Stop::listen`] is called, a signal kills this process as usual,
/// which is safe as long as no work has started.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<OnceLock<Wire>>);

#[derive(Debug)]
struct Wire {
    /// A pipe that becomes readable at the first signal. It is never read, so it stays readable.
    received: PipeReader,
    _writer: PipeWriter,
    /// The number of the last signal received, or 0.
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// Installs handlers that record the signals.
    ///
    /// A signal that this process ignores (`nohup`) remains ignored.
    ///
    /// # Errors
    /// An I/O error if a handler cannot be installed. The signal then still kills this process.
    pub fn listen(&self) -> io::Result<()> {
        if self.0.get().is_some() {
            return Ok(());
        }
        let (wire, writer) = Wire::new()?;
        let ignored = ignored();
        for signal in SIGNALS.map(|signal| signal as i32) {
            if ignored & (1 << (signal - 1)) == 0 {
                // The handlers run in this order, so the number is stored before the pipe is
                // readable.
                let number = usize::try_from(signal).unwrap_or_default();
                flag::register_usize(signal, Arc::clone(&wire.signal), number)?;
                pipe::register(signal, writer.try_clone()?)?;
            }
        }
        let _ = self.0.set(wire);
        Ok(())
    }

    /// Returns the last signal received, or `None` if no signal has been received.
    #[must_use]
    pub fn asked(&self) -> Option<Signal> {
        let number = self.0.get()?.signal.load(Ordering::SeqCst);
        Signal::try_from(i32::try_from(number).ok()?).ok()
    }

    /// Returns the exit code of a run that a signal has ended, or `None` if no signal has been
    /// received.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        self.asked().map(exit_code)
    }

    /// Returns a descriptor that becomes readable at the first signal, or `None` if
    /// [`Stop::listen`] has not been called.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.get().map(|wire| wire.received.as_fd())
    }

    /// Creates the request that results from receiving `signal`.
    #[cfg(test)]
    pub(crate) fn after(signal: Signal) -> Self {
        let (wire, mut writer) = Wire::new().unwrap();
        wire.signal.store(signal as usize, Ordering::SeqCst);
        io::Write::write_all(&mut writer, b"!").unwrap();
        Self(Arc::new(OnceLock::from(wire)))
    }
}

/// Returns the exit code of a run that `signal` has ended: 128 plus the signal's number, as a shell
/// returns for a program killed by a signal.
#[must_use]
pub fn exit_code(signal: Signal) -> u8 {
    128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or_default())
}

impl Wire {
    fn new() -> io::Result<(Self, PipeWriter)> {
        let (received, writer) = io::pipe()?;
        Ok((Self { received, _writer: writer.try_clone()?, signal: Arc::default() }, writer))
    }
}

/// Returns the signals that this process ignores, as a bit mask in which bit 0 is signal 1.
///
/// Reads `SigIgn` (proc(5)), and returns 0 if /proc is not mounted.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or_default()
}
