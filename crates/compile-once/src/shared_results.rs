//! The results of shared compiler calls in this run, one directory for each call.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};

use crate::shared_call::SharedCall;

/// The stored results of a run. Only successes are stored: a compiler that ran out of memory or disk
/// space may succeed the next time.
pub(crate) struct SharedResults {
    dir: PathBuf,
}

impl SharedResults {
    pub(crate) fn in_dir(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Writes the call's files from the stored result. Returns `None` if there is no result, or if
    /// a file cannot be written: the compiler then reports why.
    pub(crate) fn restore(&self, key: &str, call: &SharedCall) -> Option<Output> {
        let result = self.dir.join(key);
        let said = Output {
            status: ExitStatus::default(),
            stdout: fs::read(result.join("stdout")).ok()?,
            stderr: fs::read(result.join("stderr")).ok()?,
        };
        if let Some(dependencies) = &call.dependencies {
            fs::copy(result.join("dependencies"), dependencies).ok()?;
        }
        fs::copy(result.join("object"), &call.object).ok()?;
        Some(said)
    }

    /// Stores a result. Other processes see all of it or nothing.
    pub(crate) fn store(&self, key: &str, call: &SharedCall, said: &Output) -> io::Result<()> {
        if !said.status.success() || !is_file(&call.object) {
            return Ok(());
        }
        let result = tempfile::Builder::new().prefix(".").tempdir_in(&self.dir)?;
        fs::write(result.path().join("stdout"), &said.stdout)?;
        fs::write(result.path().join("stderr"), &said.stderr)?;
        fs::copy(&call.object, result.path().join("object"))?;
        if let Some(dependencies) = &call.dependencies {
            fs::copy(dependencies, result.path().join("dependencies"))?;
        }
        // Fails if another job stored the same result first. This one is then deleted by its guard.
        fs::rename(result.path(), self.dir.join(key))
    }
}

/// Not /dev/null, which some configure scripts name.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}
