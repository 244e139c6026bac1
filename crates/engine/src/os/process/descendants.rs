//! Finds and kills a program's descendants by a mark in their environment.
//!
//! Used if no pid namespace is available. The mark also identifies processes that have left the
//! program's process group (`setsid`) or lost their parent (daemons).

use std::ffi::OsString;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The environment variable that contains the mark.
pub(super) const VARIABLE: &str = "ALPM_DKMS_CHILD";

/// The maximum number of passes over all processes. New processes may start during a pass.
const ROUNDS: usize = 100;

/// The mark of one program and its descendants, unique on this machine.
#[derive(Debug)]
pub(super) struct Mark(String);

impl Mark {
    pub(super) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{}.{number}", std::process::id()))
    }

    pub(super) fn value(&self) -> OsString {
        OsString::from(&self.0)
    }

    /// Kills every process with this mark whose environment is readable.
    pub(super) fn kill_all(&self) {
        let variable = format!("{VARIABLE}={}", self.0).into_bytes();
        for _ in 0..ROUNDS {
            let mut found = false;
            for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                else {
                    continue;
                };
                // Empty for a zombie, which does not need to be killed.
                let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
                if environment.split(|byte| *byte == 0).any(|it| it == variable) {
                    found |= kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok();
                }
            }
            if !found {
                return;
            }
        }
    }
}
