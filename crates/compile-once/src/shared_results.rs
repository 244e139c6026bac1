//! Stores the results of shared compiler calls during a run, in one directory for each call.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};

use crate::shared_call::SharedCall;

/// The stored results of a run.
///
/// Failures are not stored: a compiler that has run out of memory or disk space may succeed the
/// next time.
pub(crate) struct SharedResults {
    dir: PathBuf,
}

impl SharedResults {
    pub(crate) fn in_dir(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Writes the object of `call` from the result stored under `key`, and returns the compiler's
    /// output.
    ///
    /// Returns `None` if no result is stored or the object cannot be written. The caller must then
    /// run the compiler, which reports the error.
    pub(crate) fn restore(&self, key: &str, call: &SharedCall) -> Option<Output> {
        let result = self.dir.join(key);
        let said = Output {
            status: ExitStatus::default(),
            stdout: fs::read(result.join("stdout")).ok()?,
            stderr: fs::read(result.join("stderr")).ok()?,
        };
        fs::copy(result.join("object"), &call.object).ok()?;
        Some(said)
    }

    /// Stores the result of `call` under `key`, unless the call failed. The operation is atomic.
    pub(crate) fn store(&self, key: &str, call: &SharedCall, said: &Output) -> io::Result<()> {
        if !said.status.success() || !is_file(&call.object) {
            return Ok(());
        }
        let result = tempfile::Builder::new().prefix(".").tempdir_in(&self.dir)?;
        fs::write(result.path().join("stdout"), &said.stdout)?;
        fs::write(result.path().join("stderr"), &said.stderr)?;
        fs::copy(&call.object, result.path().join("object"))?;
        // Fails if another job has stored the same result. In that case, dropping `result` deletes
        // this copy.
        fs::rename(result.path(), self.dir.join(key))
    }
}

/// Returns true if `path` is a regular file. Some configure scripts use /dev/null as the object.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}
