//! How busy the machine's processors are, from /proc/stat (proc_stat(5)).

use std::fs;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(200);

/// Looks again and again until it is ended.
pub(super) struct Load {
    /// Closing it ends the thread.
    stop: Sender<()>,
    looking: Option<JoinHandle<Vec<(Duration, f64)>>>,
}

impl Load {
    /// Looks from now on; times count from `begun`.
    pub(super) fn watch(begun: Instant) -> Self {
        let (stop, stopped) = channel();
        let look = move || {
            let (mut seen, mut before) = (Vec::new(), ticks());
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = ticks();
                if let (Some(before), Some(now)) = (before, now)
                    && let Some(share) = now.since(before)
                {
                    seen.push((begun.elapsed(), share));
                }
                before = now;
            }
            seen
        };
        let looking = thread::Builder::new().name("load".into()).stack_size(64 * 1024).spawn(look);
        Self { stop, looking: looking.ok() }
    }

    /// What was seen: shares from 0 to 1, of the time until the one that stands with it. Nothing
    /// where there is no /proc.
    pub(super) fn end(self) -> Vec<(Duration, f64)> {
        drop(self.stop);
        self.looking.and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

/// What all processors have done since the machine started, in clock ticks.
#[derive(Clone, Copy)]
struct Ticks {
    idle: u64,
    all: u64,
}

fn ticks() -> Option<Ticks> {
    parse(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first line: `cpu`, then user, nice, system, idle, iowait, irq, softirq, steal; what guests
/// take, which follows, is counted in user and nice already.
fn parse(text: &str) -> Option<Ticks> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let counts: Vec<u64> =
        line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = counts.get(3)? + counts.get(4).unwrap_or(&0);
    Some(Ticks { idle, all: counts.iter().sum() })
}

impl Ticks {
    /// Which share of the time since `before` was spent at work.
    #[expect(clippy::cast_precision_loss, reason = "a share for a picture")]
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
    fn knows_the_share_of_work() {
        let before = parse("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1 2").unwrap();
        let after = parse("cpu  40 0 40 90 30 0 0 0 99 0\n").unwrap();
        assert_eq!(after.since(before), Some(0.6));
        assert_eq!(after.since(after), None);
        assert!(parse("").is_none() && parse("cpu x").is_none());
    }
}
