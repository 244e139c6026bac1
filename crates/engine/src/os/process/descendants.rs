//! Finds what a program has started by a mark in the environment.
//!
//! Without a pid namespace, this also finds what has left its process group (`setsid`) or its parent (a
//! daemon).

use std::ffi::OsString;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The variable that holds the mark.
pub(super) const VARIABLE: &str = "ALPM_DKMS_CHILD";

/// How often all processes are looked through, if each time some are left that started others.
const ROUNDS: usize = 100;

/// The mark of one program and of all that it starts, unlike any other on this machine.
#[derive(Debug)]
pub(super) struct Mark(String);

impl Mark {
    pub(super) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{}.{number}", std::process::id()))
    }

    /// The variable's value.
    pub(super) fn value(&self) -> OsString {
        OsString::from(&self.0)
    }

    /// Ends every process that bears the mark and that we may look at.
    pub(super) fn kill_all(&self) {
        let variable = format!("{VARIABLE}={}", self.0).into_bytes();
        for _ in 0..ROUNDS {
            let mut found = false;
            for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                else {
                    continue;
                };
                // Empty for a zombie, which is dead enough.
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
