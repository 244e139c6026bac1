//! The lock that lets one run at a time change the trees.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};

use crate::machine::Trees;
use crate::os::durable::{self, FileError};
use crate::os::process::Environment;

/// Set for everything a run starts, so that a dkms.conf or a script that calls `dkms` is known to
/// be part of the run that holds the lock, and does not wait for itself for ever.
pub(crate) const WITHIN_RUN: &str = "ALPM_DKMS_WITHIN_RUN";

/// The right to change the trees, until it is dropped. The kernel takes it back from a killed
/// process.
#[derive(Debug)]
pub struct Lock {
    _file: Option<File>,
}

impl Lock {
    /// Takes the lock, and waits while another run holds it; `report` is called with the holder then.
    ///
    /// The file is opened and never replaced: whoever locks it locks the same inode.
    ///
    /// # Errors
    /// [`FileError`] if the dkms tree or the lock file cannot be made, as for a user without
    /// rights or on a read-only file system.
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
        // For people only; a failure to note ourselves is no reason not to work.
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
    fn a_second_run_waits_and_reports_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        let env = Environment::fixed();
        let first = Lock::take(&trees, &env, &mut |_| panic!("nobody holds it")).unwrap();
        let (send, reports) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn({
            let (trees, env) = (trees.clone(), env.clone());
            move || {
                Lock::take(&trees, &env, &mut |text| send.send(text.to_owned()).unwrap()).unwrap();
            }
        });
        let said = reports.recv().unwrap();
        assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
        drop(first);
        waiting.join().unwrap();
    }

    #[test]
    fn what_runs_inside_a_run_does_not_wait_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        let env = Environment::fixed();
        let _outer = Lock::take(&trees, &env, &mut |_| {}).unwrap();
        let inner = env.with(WITHIN_RUN, "1");
        Lock::take(&trees, &inner, &mut |_| panic!("it waited")).unwrap();
    }
}
