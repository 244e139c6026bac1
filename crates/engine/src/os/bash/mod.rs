//! Reads files of shell assignments with bash.

mod error;
mod expand;
mod worker;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::BashError;
pub(crate) use expand::expanded;
pub use worker::{Reply, Variable};

use super::process::{Environment, Tools};
use worker::{ReadRequest, Trouble, Worker};

/// How long one file may take by default.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Reads files with one bash after the other: a bash serves until a file gets it into trouble.
pub struct BashReader {
    /// How long one file may take.
    pub patience: Duration,
    tools: Tools,
    env: Environment,
    worker: Option<Worker>,
}

impl BashReader {
    /// A reader; its bash is started when the first file is read. `env` is what the files find as
    /// their environment.
    #[must_use]
    pub fn new(tools: Tools, env: Environment) -> Self {
        let env = env.without("BASH_ENV").without("ENV").without("POSIXLY_CORRECT");
        Self { patience: PATIENCE, tools, env, worker: None }
    }

    /// Reads `file` with the variables `given` set, and returns those that are `wanted`.
    ///
    /// # Errors
    /// [`BashError`] if the file cannot be read or does not end well.
    pub fn read(
        &mut self,
        file: &Path,
        given: Vec<(String, OsString)>,
        wanted: &[&str],
    ) -> Result<Reply, BashError> {
        self.read_files(&[file], given, wanted)
    }

    /// Reads files one after the other in one shell, and returns all variables that they set.
    ///
    /// # Errors
    /// [`BashError`] if a file cannot be read or does not end well.
    pub fn read_all(
        &mut self,
        files: &[&Path],
        given: Vec<(String, OsString)>,
    ) -> Result<Reply, BashError> {
        self.read_files(files, given, &[])
    }

    fn read_files(
        &mut self,
        files: &[&Path],
        given: Vec<(String, OsString)>,
        wanted: &[&str],
    ) -> Result<Reply, BashError> {
        for file in files {
            check_readable(file)?;
        }
        // The one that was read last is the one that got bash into trouble.
        let file = |begun: usize| {
            files.get(begun.saturating_sub(1)).map_or_else(PathBuf::new, |file| file.to_path_buf())
        };
        let mut worker = match self.worker.take().filter(Worker::is_alive) {
            Some(worker) => worker,
            None => Worker::start(&self.tools, &self.env).map_err(|error| BashError::NoReader {
                file: file(0),
                reason: error.to_string(),
            })?,
        };
        let result = worker.read_files(&ReadRequest { files, given, wanted }, self.patience);
        let file = file(worker.begun);
        match result {
            Ok(reply) => {
                self.worker = Some(worker);
                Ok(reply)
            }
            // The worker is dropped and killed, with whatever the file has left running.
            Err(Trouble::TimedOut) => Err(BashError::TimedOut { file, after: self.patience }),
            Err(Trouble::TooMuch) => Err(BashError::TooMuch { file }),
            Err(Trouble::Ended(complaint)) => Err(BashError::Unfinished { file, complaint }),
        }
    }
}

/// The most bytes that a file may have; bash takes a quarter of a minute for 50 MB.
const LARGEST: u64 = 8 << 20;

/// bash would wait for ever at a pipe, read nothing from a directory, and run what it finds in a
/// binary file.
fn check_readable(file: &Path) -> Result<(), BashError> {
    let unreadable = |reason: String| BashError::Unreadable { file: file.to_owned(), reason };
    let failed = |error: io::Error| unreadable(error.to_string());
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(unreadable("it is not a file".to_owned()));
    }
    if about.len() > LARGEST {
        let problems = vec![format!("it has {} bytes, and may have {LARGEST}", about.len())];
        return Err(BashError::Invalid { file: file.to_owned(), problems });
    }
    let mut start = Vec::new();
    File::open(file).and_then(|f| f.take(64 * 1024).read_to_end(&mut start)).map_err(failed)?;
    if start.contains(&0) {
        let problems = vec!["it is not a text".to_owned()];
        return Err(BashError::Invalid { file: file.to_owned(), problems });
    }
    Ok(())
}
