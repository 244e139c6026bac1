//! Samples the CPU load of the machine from /proc/stat (proc_stat(5)).

use std::fs;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The time between two samples.
const INTERVAL: Duration = Duration::from_millis(200);

/// A thread that samples the CPU load.
pub(super) struct Load {
    /// Dropping the sender ends the thread.
    stop: Sender<()>,
    thread: Option<JoinHandle<Vec<(Duration, f64)>>>,
}

impl Load {
    /// Starts sampling the load. The times of the samples are relative to `begun`.
    pub(super) fn watch(begun: Instant) -> Self {
        let (stop, stopped) = channel();
        let sample = move || {
            let (mut samples, mut before) = (Vec::new(), ticks());
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let now = ticks();
                if let (Some(before), Some(now)) = (before, now)
                    && let Some(share) = now.since(before)
                {
                    samples.push((begun.elapsed(), share));
                }
                before = now;
            }
            samples
        };
        let thread = thread::Builder::new().name("load".into()).stack_size(64 * 1024).spawn(sample);
        Self { stop, thread: thread.ok() }
    }

    /// Ends the thread and returns its samples: the end of each interval, and the load in that
    /// interval, from 0 to 1. Empty if /proc/stat cannot be read.
    pub(super) fn end(self) -> Vec<(Duration, f64)> {
        drop(self.stop);
        self.thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

/// The sum of the times of all processors since boot, in clock ticks.
#[derive(Clone, Copy)]
struct Ticks {
    idle: u64,
    all: u64,
}

fn ticks() -> Option<Ticks> {
    parse(&fs::read_to_string("/proc/stat").ok()?)
}

/// Parses the first line of /proc/stat. Returns `None` if the line is invalid.
///
/// The line contains `cpu` and then the times user, nice, system, idle, iowait, irq, softirq and
/// steal. The times of guests follow; they are already included in user and nice.
fn parse(text: &str) -> Option<Ticks> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let counts: Vec<u64> =
        line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = counts.get(3)? + counts.get(4).unwrap_or(&0);
    Some(Ticks { idle, all: counts.iter().sum() })
}

impl Ticks {
    /// Returns the share of busy time since `before`, from 0 to 1; `None` if no time has passed.
    #[expect(clippy::cast_precision_loss, reason = "the chart needs no precision")]
    fn since(self, before: Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        let idle = self.idle.saturating_sub(before.idle).min(all);
        Some(1.0 - idle as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_the_share_of_busy_time() {
        let before = parse("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1 2").unwrap();
        let after = parse("cpu  40 0 40 90 30 0 0 0 99 0\n").unwrap();
        assert_eq!(after.since(before), Some(0.6));
        assert_eq!(after.since(after), None);
        assert!(parse("").is_none() && parse("cpu x").is_none());
    }
}
