//! Notices SIGINT, SIGTERM and SIGHUP, which ask a run to end.

use std::fs;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use nix::sys::signal::Signal;
use signal_hook::{flag, low_level::pipe};

/// Ctrl-C, `kill` or a shutdown, a terminal that is gone.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The request to end this run, shared by all clones.
///
/// A run checks it between two steps, and [`Program::run`](super::Program::run) ends what
/// it runs. Until [`Stop::listen`] is called such a signal simply kills us, which is all that is
/// needed as long as nothing was begun.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<OnceLock<Wire>>);

#[derive(Debug)]
struct Wire {
    /// Readable from the first signal on. It is never read, so it stays readable.
    received: PipeReader,
    _writer: PipeWriter,
    /// The last signal's number, 0 before the first.
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// From now on a signal does not kill us but is noted here. One that was ignored when we were
    /// started (`nohup`) stays so.
    ///
    /// # Errors
    /// Whatever the system says; then the signals kill as before.
    pub fn listen(&self) -> io::Result<()> {
        if self.0.get().is_some() {
            return Ok(());
        }
        let (wire, writer) = Wire::new()?;
        let ignored = ignored();
        for signal in SIGNALS.map(|signal| signal as i32) {
            if ignored & (1 << (signal - 1)) == 0 {
                // In this order, since that is how they are carried out.
                let number = usize::try_from(signal).unwrap_or_default();
                flag::register_usize(signal, Arc::clone(&wire.signal), number)?;
                pipe::register(signal, writer.try_clone()?)?;
            }
        }
        let _ = self.0.set(wire);
        Ok(())
    }

    /// Returns the last signal, if there was one.
    #[must_use]
    pub fn asked(&self) -> Option<Signal> {
        let number = self.0.get()?.signal.load(Ordering::SeqCst);
        Signal::try_from(i32::try_from(number).ok()?).ok()
    }

    /// Returns a descriptor that is readable from the first signal on.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.get().map(|wire| wire.received.as_fd())
    }

    /// A request that was made by this signal.
    #[cfg(test)]
    pub(crate) fn after(signal: Signal) -> Self {
        let (wire, mut writer) = Wire::new().unwrap();
        wire.signal.store(signal as usize, Ordering::SeqCst);
        io::Write::write_all(&mut writer, b"!").unwrap();
        Self(Arc::new(OnceLock::from(wire)))
    }
}

impl Wire {
    fn new() -> io::Result<(Self, PipeWriter)> {
        let (received, writer) = io::pipe()?;
        Ok((Self { received, _writer: writer.try_clone()?, signal: Arc::default() }, writer))
    }
}

/// The set of signals that this process ignores: bit 0 is signal 1 (proc(5), `SigIgn`). Empty if
/// there is no /proc.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or_default()
}
