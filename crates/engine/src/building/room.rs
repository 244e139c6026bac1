//! Finds out whether the disk was full at any time during a build.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The time between two measurements.
const INTERVAL: Duration = Duration::from_millis(20);

/// The maximum depth at which configure's logs are searched for in a build directory.
const DEPTH: usize = 4;

/// The maximum number of bytes that are read from each log.
const MAX_LOG: u64 = 4 << 20;

/// Measures the free space during a build, since a script that fills the disk may delete its files
/// before it fails.
pub(super) struct RoomWatch {
    lowest: Arc<AtomicU64>,
    /// Dropped to end the thread.
    end: Option<mpsc::Sender<()>>,
    /// `None` if the thread could not be started; the space is then not measured.
    thread: Option<JoinHandle<()>>,
}

impl RoomWatch {
    /// Starts to measure with `room`, which returns the free space in bytes.
    pub(super) fn start(room: impl Fn() -> Option<u64> + Send + 'static) -> Self {
        let lowest = Arc::new(AtomicU64::new(u64::MAX));
        let (end, ended) = mpsc::channel();
        let seen = Arc::clone(&lowest);
        let measure = move || loop {
            seen.fetch_min(room().unwrap_or(u64::MAX), Ordering::Relaxed);
            if ended.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        };
        let thread = thread::Builder::new().name("room".into()).spawn(measure).ok();
        Self { lowest, end: Some(end), thread }
    }

    /// Ends the measurement and returns the least free space in bytes.
    pub(super) fn lowest(mut self) -> u64 {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.lowest.load(Ordering::Relaxed)
    }
}

/// Returns true if a log of configure in `build_dir` says that the disk is full. In this case, the
/// output of configure only says that the compiler does not work.
pub(super) fn configure_ran_out(build_dir: &Path) -> bool {
    let files = walkdir::WalkDir::new(build_dir).max_depth(DEPTH).into_iter().flatten();
    let mut logs = files.filter(|it| it.file_type().is_file() && it.file_name() == "config.log");
    logs.any(|log| says_full(log.path()))
}

fn says_full(log: &Path) -> bool {
    let Ok(log) = File::open(log) else { return false };
    let mut lines = BufReader::new(log.take(MAX_LOG)).split(b'\n').map_while(Result::ok);
    lines.any(|line| {
        let line = String::from_utf8_lossy(&line);
        line.contains("No space left on device") || line.contains("Disk quota exceeded")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::emptied_again(&[900, 5, 900], 5)]
    #[case::filled(&[900, 7], 7)]
    #[case::unknown(&[], u64::MAX)]
    fn lowest_room_is_remembered(#[case] measured: &'static [u64], #[case] want: u64) {
        let (next, (asked, answered)) = (AtomicU64::new(0), mpsc::channel());
        let watch = RoomWatch::start(move || {
            let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
            if index >= measured.len() {
                let _ = asked.send(());
            }
            measured.get(index).or(measured.last()).copied()
        });
        answered.recv().unwrap();
        assert_eq!(watch.lowest(), want);
    }

    #[rstest]
    #[case("config.log", "conftest.c:1: fatal error: x: No space left on device\n", true)]
    #[case("a/b/config.log", "gcc: write error: Disk quota exceeded\n", true)]
    #[case("config.log", "conftest.c:1: error: no\n", false)]
    #[case("other.log", "No space left on device\n", false)]
    fn logs_of_configure_are_read(#[case] file: &str, #[case] text: &str, #[case] want: bool) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
        fs::write(dir.path().join(file), text).unwrap();
        assert_eq!(configure_ran_out(dir.path()), want);
    }
}
