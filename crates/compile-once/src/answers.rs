//! The answers that a compiler gave in this run, one directory for each question.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};

use crate::question::Question;

/// The answers of a run. Only a success is kept: a compiler may fail for want of memory, or of room
/// on the disk, and do better the next time.
pub(crate) struct Answers {
    dir: PathBuf,
}

impl Answers {
    pub(crate) fn of(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Writes the files that were asked for, as the compiler did the last time; nothing if it was
    /// not asked yet, or if they cannot be written: let the compiler say why.
    pub(crate) fn give(&self, name: &str, question: &Question) -> Option<Output> {
        let answer = self.dir.join(name);
        let said = Output {
            status: ExitStatus::default(),
            stdout: fs::read(answer.join("stdout")).ok()?,
            stderr: fs::read(answer.join("stderr")).ok()?,
        };
        if let Some(dependencies) = &question.dependencies {
            fs::copy(answer.join("dependencies"), dependencies).ok()?;
        }
        fs::copy(answer.join("object"), &question.object).ok()?;
        Some(said)
    }

    /// Keeps an answer. Whoever asks the same meanwhile sees all of it or nothing.
    pub(crate) fn keep(&self, name: &str, question: &Question, said: &Output) -> io::Result<()> {
        if !said.status.success() || !is_file(&question.object) {
            return Ok(());
        }
        let answer = tempfile::Builder::new().prefix(".").tempdir_in(&self.dir)?;
        fs::write(answer.path().join("stdout"), &said.stdout)?;
        fs::write(answer.path().join("stderr"), &said.stderr)?;
        fs::copy(&question.object, answer.path().join("object"))?;
        if let Some(dependencies) = &question.dependencies {
            fs::copy(dependencies, answer.path().join("dependencies"))?;
        }
        // Another job may have been as quick: then this one goes with its guard.
        fs::rename(answer.path(), self.dir.join(name))
    }
}

/// Not /dev/null, which some configure scripts name.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}
