//! Writes the log of a build in the format of dkms, while the build runs.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::durable::FileError;
use crate::os::process::{Ended, Environment, How, Program, RunError, SIGNALLED};

/// The line below each step: 64 dashes.
const RULE: &str = "----------------------------------------------------------------";

/// The exit status of timeout(1) for a program that timed out.
const OUT_OF_TIME: i32 = 124;
/// The shell's exit status for a program interrupted by Ctrl-C.
const INTERRUPTED: i32 = 130;
/// The shell's exit status for a program that it cannot start.
const NOT_STARTED: i32 = 127;

/// A `make.log` that is being written (dkms-behaviour 4.5).
#[derive(Debug)]
pub struct MakeLog {
    path: PathBuf,
    file: File,
    /// The part of the file that contains the output of the last step.
    last_step: Range<u64>,
}

/// The error of a step that could not be run or logged.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The log cannot be written.
    #[error(transparent)]
    Log(#[from] FileError),
    /// The program cannot be run.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl MakeLog {
    /// Starts a log at `path` with the header of dkms. Replaces an existing log.
    ///
    /// # Errors
    /// [`FileError`] if the log cannot be written.
    pub fn start(
        path: &Path,
        id: &ModuleId,
        kernel: &KernelRelease,
        arch: &Arch,
    ) -> Result<Self, FileError> {
        let mut log = Self::without_head(path)?;
        let date = date();
        log.say(&format!(
            "DKMS (dkms-3.4.3) make.log for {id} for kernel {kernel} ({arch})\n{date}\n"
        ))?;
        Ok(log)
    }

    /// Starts a log without the header of dkms, which names a module and a kernel. Replaces an
    /// existing log.
    ///
    /// # Errors
    /// [`FileError`] if the log cannot be written.
    pub fn without_head(path: &Path) -> Result<Self, FileError> {
        let failed = || FileError::when("write", path);
        File::create(path).map_err(failed())?;
        let file = File::options().append(true).open(path).map_err(failed())?;
        Ok(Self { path: path.to_owned(), file, last_step: 0..0 })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the part of the log that contains the output of the last step.
    #[must_use]
    pub fn last_step(&self) -> &Range<u64> {
        &self.last_step
    }

    /// Runs one step and logs its description, command line, output, exit status and duration.
    ///
    /// `run` receives the log file, open for appending. It must run the step's program with that
    /// file as the output.
    ///
    /// # Errors
    /// [`StepError::Run`] if `run` fails; the log then contains the error. [`StepError::Log`] if
    /// the log cannot be written.
    pub fn step(
        &mut self,
        description: &str,
        command: &str,
        run: impl FnOnce(File) -> Result<Ended, RunError>,
    ) -> Result<Ended, StepError> {
        self.say(&format!("\n{description}\n# command: {command}\n"))?;
        let output = self.file.try_clone().map_err(FileError::when("write", &self.path))?;
        self.last_step = self.size()?..u64::MAX;
        let ended = run(output);
        if ended.is_ok() {
            self.last_step.end = self.size()?;
        }
        let (code, elapsed) = match &ended {
            Ok(Ended { how: How::Exited(code), elapsed, .. }) => (*code, *elapsed),
            Ok(Ended { how: How::Killed(signal), elapsed, .. }) => (SIGNALLED + signal, *elapsed),
            Ok(Ended { how: How::TimedOut, elapsed, .. }) => {
                self.say("timed out\n")?;
                (OUT_OF_TIME, *elapsed)
            }
            Ok(Ended { how: How::Interrupted, elapsed, .. }) => {
                self.say("interrupted\n")?;
                (INTERRUPTED, *elapsed)
            }
            Err(error) => {
                self.say(&format!("{error}\n"))?;
                (NOT_STARTED, Duration::ZERO)
            }
        };
        let elapsed = Clock(elapsed.as_secs());
        self.say(&format!("\n# exit code: {code}\n# elapsed time: {elapsed}\n{RULE}\n"))?;
        Ok(ended?)
    }

    fn size(&self) -> Result<u64, FileError> {
        let about = self.file.metadata().map_err(FileError::when("read", &self.path))?;
        Ok(about.len())
    }

    fn say(&mut self, text: &str) -> Result<(), FileError> {
        self.file.write_all(text.as_bytes()).map_err(FileError::when("write", &self.path))
    }
}

/// A number of seconds, displayed as `HH:MM:SS`.
struct Clock(u64);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}:{:02}", self.0 / 3600, self.0 / 60 % 60, self.0 % 60)
    }
}

/// Returns the current time in UTC as printed by date(1), which dkms also uses; empty if date(1)
/// cannot be run.
fn date() -> String {
    let env = Environment::fixed();
    let printed = Program::new("date", &env).arg("-u").run().map(|ended| ended.output);
    String::from_utf8_lossy(printed.unwrap_or_default().trim_ascii()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process::Output;

    #[test]
    fn log_has_the_format_of_dkms() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("make.log");
        std::fs::write(&path, "an older log").unwrap();
        let id: ModuleId = "v4l2loopback/0.15.4".parse().unwrap();
        let (kernel, arch) = ("7.2.12-arch1-1".parse().unwrap(), "x86_64".parse().unwrap());
        let mut log = MakeLog::start(&path, &id, &kernel, &arch).unwrap();
        let env = Environment::fixed();
        let run = |script: &'static str| {
            let env = &env;
            move |output| {
                Program::new("bash", env).args(["-c", script]).output(Output::Log(output)).run()
            }
        };
        let ended =
            log.step("Running the pre_build script", "./pre.sh", run("echo hello")).unwrap();
        assert!(ended.success());
        let ended = log.step("Building module(s)", "make all", run("echo bad >&2; exit 2"));
        assert_eq!(ended.unwrap().how, How::Exited(2));
        let missing = |output| Program::new("no-such", &env).output(Output::Log(output)).run();
        assert!(matches!(log.step("Third", "no-such", missing), Err(StepError::Run(_))));

        let text = std::fs::read_to_string(log.path()).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        assert_eq!(
            first,
            "DKMS (dkms-3.4.3) make.log for v4l2loopback/0.15.4 for kernel 7.2.12-arch1-1 (x86_64)"
        );
        let (date, steps) = rest.split_once('\n').unwrap();
        assert!(date.contains(" UTC 2"), "{date}");
        insta::assert_snapshot!(steps.trim(), @"
        Running the pre_build script
        # command: ./pre.sh
        hello

        # exit code: 0
        # elapsed time: 00:00:00
        ----------------------------------------------------------------

        Building module(s)
        # command: make all
        bad

        # exit code: 2
        # elapsed time: 00:00:00
        ----------------------------------------------------------------

        Third
        # command: no-such
        cannot run `no-such`: program not found: no-such; install the package that provides it

        # exit code: 127
        # elapsed time: 00:00:00
        ----------------------------------------------------------------
        ");
    }
}
