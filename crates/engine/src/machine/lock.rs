//! The lock that allows only one run at a time to change the trees.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};

use crate::machine::Trees;
use crate::os::durable::{self, FileError};
use crate::os::process::Environment;

/// The environment variable that a run sets for its child processes.
///
/// Without it, a `dkms` command in a dkms.conf or a script would wait forever for the lock of its
/// own run.
pub(crate) const WITHIN_RUN: &str = "ALPM_DKMS_WITHIN_RUN";

/// The exclusive permission to change the trees. Dropping it releases the lock.
///
/// If the process is killed, the kernel releases the lock.
#[derive(Debug)]
pub struct Lock {
    _file: Option<File>,
}

impl Lock {
    /// Acquires the lock. If another run holds it, calls `report` with a message that names the
    /// holder, then waits.
    ///
    /// If a run started this process (`env` contains `ALPM_DKMS_WITHIN_RUN`), returns at once
    /// without acquiring the lock: the parent run holds it.
    ///
    /// # Errors
    /// [`FileError`] if the dkms tree cannot be created, or if the lock file cannot be created,
    /// opened or locked. This happens without root privileges or on a read-only file system.
    pub fn take(
        trees: &Trees,
        env: &Environment,
        report: &mut dyn FnMut(&str),
    ) -> Result<Self, FileError> {
        if env.get(WITHIN_RUN).is_some() {
            return Ok(Self { _file: None });
        }
        durable::create_dirs(&trees.dkms)?;
        let path = trees.lock();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(FileError::when("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                report(&format!("waiting for another run to finish: {}", holder.trim()));
                file.lock().map_err(FileError::when("lock", &path))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(FileError::when("lock", &path)(error));
            }
        }
        // The text is only informational, so a failure to write it is ignored.
        let program = std::env::args().next().unwrap_or_default();
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "process {} ({program})", std::process::id()));
        Ok(Self { _file: Some(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_run_waits_and_reports_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        let env = Environment::fixed();
        let first = Lock::take(&trees, &env, &mut |_| panic!("the lock is free")).unwrap();
        let (send, reports) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn({
            let (trees, env) = (trees.clone(), env.clone());
            move || {
                Lock::take(&trees, &env, &mut |text| send.send(text.to_owned()).unwrap()).unwrap();
            }
        });
        let report = reports.recv().unwrap();
        assert!(report.contains(&format!("process {}", std::process::id())), "{report}");
        drop(first);
        waiting.join().unwrap();
    }

    #[test]
    fn command_within_a_run_does_not_wait_for_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        let env = Environment::fixed();
        let _outer = Lock::take(&trees, &env, &mut |_| {}).unwrap();
        let inner = env.with(WITHIN_RUN, "1");
        Lock::take(&trees, &inner, &mut |_| panic!("it waited")).unwrap();
    }
}
