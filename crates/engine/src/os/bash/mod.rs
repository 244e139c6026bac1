//! Evaluates files of shell assignments with bash.

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
pub(crate) use worker::DIRECTIVE;
pub use worker::{Reply, Variable};

use super::process::{Environment, Program, Tools};
use worker::{ReadError, ReadRequest, Worker};

/// The default of [`BashReader::patience`].
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A reader that evaluates files in a bash process.
///
/// The process is reused for all files until a read fails.
pub struct BashReader {
    /// The time limit for one call of [`BashReader::read`] or [`BashReader::read_all`].
    pub patience: Duration,
    tools: Tools,
    env: Environment,
    worker: Option<Worker>,
}

impl BashReader {
    /// Creates a reader that evaluates files in the environment `env`.
    ///
    /// bash is started when the first file is read.
    #[must_use]
    pub fn new(tools: Tools, env: Environment) -> Self {
        let env = env.without("BASH_ENV").without("ENV").without("POSIXLY_CORRECT");
        Self { patience: PATIENCE, tools, env, worker: None }
    }

    /// Sets the variables `given`, evaluates `file`, and returns the variables `wanted`.
    ///
    /// # Errors
    /// [`BashError`] if the file cannot be read or evaluated to its end.
    pub fn read(
        &mut self,
        file: &Path,
        given: Vec<(String, OsString)>,
        wanted: &[&str],
    ) -> Result<Reply, BashError> {
        self.read_in(Path::new("/"), file, given, wanted)
    }

    /// Like [`read`](Self::read), with `dir` instead of `/` as the working directory.
    ///
    /// # Errors
    /// [`BashError`] if the file cannot be read or evaluated to its end.
    pub(crate) fn read_in(
        &mut self,
        dir: &Path,
        file: &Path,
        given: Vec<(String, OsString)>,
        wanted: &[&str],
    ) -> Result<Reply, BashError> {
        self.read_files(&ReadRequest { dir, files: &[file], given, wanted })
    }

    /// Sets the variables `given`, evaluates `files` in order in one shell, and returns all
    /// variables that the files set.
    ///
    /// # Errors
    /// [`BashError`] if a file cannot be read or evaluated to its end.
    pub fn read_all(
        &mut self,
        files: &[&Path],
        given: Vec<(String, OsString)>,
    ) -> Result<Reply, BashError> {
        self.read_files(&ReadRequest { dir: Path::new("/"), files, given, wanted: &[] })
    }

    /// Returns true if bash can parse `file`. Does not evaluate it.
    pub(crate) fn can_parse(&self, file: &Path) -> bool {
        let program = Program::new(&self.tools.bash, &self.env).args(["-p", "-n"]).arg(file);
        let ended = program.cwd("/").deadline(self.patience).confined(&self.tools).run();
        ended.is_ok_and(|ended| ended.success())
    }

    fn read_files(&mut self, request: &ReadRequest<'_>) -> Result<Reply, BashError> {
        let files = request.files;
        for file in files {
            check_readable(file)?;
        }
        // An error is attributed to the file whose evaluation began last.
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
        let result = worker.read_files(request, self.patience);
        let file = file(worker.begun);
        match result {
            Ok(reply) => {
                self.worker = Some(worker);
                Ok(reply)
            }
            // The worker is dropped, which kills it and all processes that the file has started.
            Err(ReadError::TimedOut) => Err(BashError::TimedOut { file, after: self.patience }),
            Err(ReadError::TooMuch) => Err(BashError::TooMuch { file }),
            Err(ReadError::Ended(complaint)) => Err(BashError::Unfinished { file, complaint }),
        }
    }
}

/// The maximum size of a file in bytes. bash takes 15 s to evaluate 50 MB.
const MAX_SIZE: u64 = 8 << 20;

/// Checks that `file` is a regular text file of acceptable size.
///
/// Without this check, bash would wait forever to read from a pipe, read nothing from a directory,
/// or execute the content of a binary file.
fn check_readable(file: &Path) -> Result<(), BashError> {
    let unreadable = |reason: String| BashError::Unreadable { file: file.to_owned(), reason };
    let failed = |error: io::Error| unreadable(error.to_string());
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(unreadable("not a regular file".to_owned()));
    }
    if about.len() > MAX_SIZE {
        let problems = vec![format!("too large: {} bytes (maximum {MAX_SIZE})", about.len())];
        return Err(BashError::Invalid { file: file.to_owned(), problems });
    }
    let mut start = Vec::new();
    File::open(file).and_then(|f| f.take(64 * 1024).read_to_end(&mut start)).map_err(failed)?;
    if start.contains(&0) {
        let problems = vec!["not a text file".to_owned()];
        return Err(BashError::Invalid { file: file.to_owned(), problems });
    }
    Ok(())
}
