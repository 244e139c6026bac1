//! Notices SIGINT, SIGTERM and SIGHUP, which ask a run to end.

use std::fs;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use nix::sys::signal::Signal;
use signal_hook::{flag, low_level::pipe};

/// The signals that ask a program to end: Ctrl-C, `kill` or a shutdown, a terminal that is gone.
const ASKING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Tells whether we were asked to end. Clones know of the same wish.
///
/// Whoever works looks here between two steps, and [`Program::run`](super::Program::run) ends what
/// it runs. Until [`Stop::listen`] is called such a signal simply kills us, which is all that is
/// needed as long as nothing was begun.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<OnceLock<Wire>>);

#[derive(Debug)]
struct Wire {
    /// Readable from the first signal on, for everybody: nobody reads from it.
    asked: PipeReader,
    _asks: PipeWriter,
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
        let (wire, asks) = Wire::new()?;
        let ignored = ignored();
        for signal in ASKING.map(|signal| signal as i32) {
            if ignored & (1 << (signal - 1)) == 0 {
                // In this order, since that is how they are carried out.
                let number = usize::try_from(signal).unwrap_or_default();
                flag::register_usize(signal, Arc::clone(&wire.signal), number)?;
                pipe::register(signal, asks.try_clone()?)?;
            }
        }
        let _ = self.0.set(wire);
        Ok(())
    }

    /// The signal by which we were asked to end, if we were.
    #[must_use]
    pub fn asked(&self) -> Option<Signal> {
        let number = self.0.get()?.signal.load(Ordering::SeqCst);
        Signal::try_from(i32::try_from(number).ok()?).ok()
    }

    /// Becomes readable, and stays so, when we are asked.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.get().map(|wire| wire.asked.as_fd())
    }

    /// What has been asked already.
    #[cfg(test)]
    pub(crate) fn after(signal: Signal) -> Self {
        let (wire, mut asks) = Wire::new().unwrap();
        wire.signal.store(signal as usize, Ordering::SeqCst);
        io::Write::write_all(&mut asks, b"!").unwrap();
        Self(Arc::new(OnceLock::from(wire)))
    }
}

impl Wire {
    fn new() -> io::Result<(Self, PipeWriter)> {
        let (asked, asks) = io::pipe()?;
        Ok((Self { asked, _asks: asks.try_clone()?, signal: Arc::default() }, asks))
    }
}

/// The set of signals that this process ignores: bit 0 is signal 1 (proc(5), `SigIgn`). Empty if
/// there is no /proc.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or_default()
}
