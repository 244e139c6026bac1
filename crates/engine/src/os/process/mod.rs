//! Starts programs, the only module that does.
//!
//! Each program is bounded in time and output, gets its whole environment from us, and is ended with
//! everything it started when its time or ours is over.

mod child;
mod confinement;
mod descendants;
mod ended;
mod environment;
mod output;
mod stop;
#[cfg(test)]
mod tests;
mod tools;

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

pub use confinement::{Bond, Confinement};
pub use ended::{Ended, How, RunError};
pub use environment::Environment;
pub(crate) use environment::is_program;
pub use output::Output;
pub use stop::Stop;
pub use tools::Tools;

pub(crate) use child::{Running, ready};
use confinement::Shown;
use descendants::Mark;
use output::Streams;

/// How long a pipe that is still being filled is read after the program has ended.
const DRAINING: Duration = Duration::from_millis(100);

/// A pipe that is ready for writing takes at least this much at once (`PIPE_BUF`).
const PIPE_BUF: usize = 4096;

/// Where our own `make` finds the jobserver if MAKEFLAGS does not name it: `PID R,W`.
const JOBSERVER: &str = "ALPM_DKMS_JOBSERVER";

/// A program about to be run.
///
/// Standard input is empty (at its end) unless bytes are given. Standard output and error are
/// never ours: pacman waits until nobody holds the hook's own any more.
pub struct Program<'a> {
    program: PathBuf,
    args: Vec<OsString>,
    env: &'a Environment,
    cwd: Option<PathBuf>,
    stdin: Vec<u8>,
    output: Output<'a>,
    deadline: Option<Duration>,
    jobserver: Option<&'a jobserver::Client>,
    confined: Option<&'a Tools>,
    shown: Option<Shown>,
}

impl<'a> Program<'a> {
    /// A program by its path, or by a plain name that is looked up in the PATH of `env`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, env: &'a Environment) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env,
            cwd: None,
            stdin: Vec::new(),
            output: Output::Capture,
            deadline: None,
            jobserver: None,
            confined: None,
            shown: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The directory it starts in; ours if none is given.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// What it can read from its standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Where its standard output and error go; [`Output::Capture`] if nothing is said.
    #[must_use]
    pub fn output(mut self, output: Output<'a>) -> Self {
        self.output = output;
        self
    }

    /// How long it may run; then it is killed with all that it started. `Duration::MAX` is as long
    /// as it likes.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Lets a make below join this jobserver: through MAKEFLAGS and two inherited descriptors.
    /// Whatever MAKEFLAGS the environment holds is replaced.
    #[must_use]
    pub(crate) fn jobserver(mut self, client: &'a jobserver::Client) -> Self {
        self.jobserver = Some(client);
        self
    }

    /// Binds it to our life: when this process ends, even by SIGKILL, or by a signal (see
    /// [`Stop`]), it ends with all that it started; and when it ends, so does whatever it left in
    /// the background. As far as the machine allows, see [`Bond`].
    ///
    /// In a pid namespace the program is process 1: a signal without a handler that it sends to
    /// itself has no effect.
    #[must_use]
    pub fn confined(mut self, tools: &'a Tools) -> Self {
        self.confined = Some(tools);
        self
    }

    /// Shows the directory `real` to it, and to all that it starts, in the place of the directory
    /// `at`, which must be there. Only for a confined program, where
    /// [`Confinement::has_own_mounts`]; the directory it starts in is meant as it sees it.
    #[must_use]
    pub(crate) fn shown(mut self, real: &Path, at: &Path) -> Self {
        self.shown = Some(Shown { real: real.to_owned(), at: at.to_owned() });
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`RunError`] if it could not be started or watched. A program that fails, or is out of
    /// time, is no error here, see [`Ended::how`].
    pub fn run(mut self) -> Result<Ended, RunError> {
        let started = Instant::now();
        let line = self.command_line();
        let failed = |source| RunError::Io { line: line.clone(), source };
        let output = std::mem::replace(&mut self.output, Output::Capture);
        let (mut streams, stdout, stderr) = Streams::open(output).map_err(failed)?;
        let (ours, feed) = io::pipe().map_err(failed)?;
        let mut running = self.start(ours.into(), stdout, stderr)?;
        let mut feed = Feed { bytes: &self.stdin, pipe: Some(feed) };
        feed.close_if_done();

        let mut until = self.deadline.and_then(|deadline| started.checked_add(deadline));
        let (mut by_us, mut over) = (None, false);
        let mut drained_by = None;
        while !over || !streams.is_empty() {
            let stop = self.confined.and_then(|tools| tools.stop.fd());
            let stop = stop.filter(|_| !over && by_us.is_none());
            let mut fds: Vec<_> = stop.map(|fd| (fd, PollFlags::POLLIN)).into_iter().collect();
            if !over {
                fds.push((running.ended(), PollFlags::POLLIN));
            }
            fds.extend(streams.fds().map(|fd| (fd, PollFlags::POLLIN)));
            if let Some(pipe) = feed.pipe.as_ref().filter(|_| !over) {
                fds.push((pipe.as_fd(), PollFlags::POLLOUT));
            }
            let mut ready = ready(&fds, until).map_err(failed)?.into_iter();
            drop(fds);
            let out_of_time = !ready.as_slice().contains(&true);
            let stopped = stop.is_some() && ready.next() == Some(true);
            if out_of_time || stopped {
                if over || by_us.is_some() {
                    break;
                }
                by_us = Some(if stopped { How::Interrupted } else { How::TimedOut });
                running.kill();
                until = Some(Instant::now() + DRAINING);
                continue;
            }
            if !over && ready.next() == Some(true) {
                // The program's output is in the pipes by now; another process may hold them open
                // for ever.
                over = true;
                until = Some(Instant::now());
                drained_by = Some(Instant::now() + DRAINING);
            }
            streams.read(&mut ready).map_err(failed)?;
            if !over && ready.next() == Some(true) {
                feed.write();
            }
            if drained_by.is_some_and(|limit| Instant::now() > limit) {
                break;
            }
        }
        if self.confined.is_some() {
            running.kill_rest();
        }
        let status = running.reap().map_err(failed)?;
        let how = by_us.unwrap_or_else(|| How::of(status));
        let (output, errors) = streams.finish();
        Ok(Ended { how, output, errors, elapsed: started.elapsed() })
    }

    /// Starts it with the given streams and returns at once.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts programs")]
    pub(crate) fn start(
        &self,
        stdin: Stdio,
        stdout: Stdio,
        stderr: Stdio,
    ) -> Result<Running, RunError> {
        let line = self.command_line();
        if let Some(dir) = self.cwd.as_ref().filter(|dir| !dir.is_dir()) {
            return Err(RunError::NoDirectory { line, dir: dir.clone() });
        }
        if !self.exists() {
            return Err(RunError::NoProgram { line, program: self.program.clone() });
        }
        let bond = self.confined.map_or(Bond::None, |tools| tools.confinement.bond(tools));
        let mut words = self.confined.map_or_else(Vec::new, |tools| {
            confinement::words(tools, bond, self.shown.as_ref(), self.cwd.as_deref())
        });
        words.push(self.program.clone().into());
        words.extend(self.args.iter().cloned());
        let mut words = words.into_iter();

        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).env_clear().envs(self.env.iter()).process_group(0);
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        if let Some(dir) = &self.cwd {
            // Through whichever links it was reached, as a shell's `cd` leaves it.
            command.current_dir(dir).env("PWD", dir);
        }
        if let Some(client) = self.jobserver {
            client.configure_make(&mut command);
            command.env_remove("CARGO_MAKEFLAGS").env_remove("MFLAGS");
            let ends = jobserver_ends(&command).unwrap_or_default();
            command.env(JOBSERVER, format!("{} {ends}", std::process::id()));
        }
        let mark = self.confined.filter(|_| bond != Bond::Namespace).map(|_| Mark::new());
        if let Some(mark) = &mark {
            command.env(descendants::VARIABLE, mark.value());
        }
        let running = Running::watch(bond, mark, || command.spawn());
        running.map_err(|source| RunError::Io { line, source })
    }

    /// Returns true if there is such a program: under a bond another program starts it, and would
    /// report a missing one as exit status 127.
    fn exists(&self) -> bool {
        if self.program.components().count() > 1 {
            let base = self.cwd.as_deref().unwrap_or(Path::new(""));
            let path = base.join(&self.program);
            return is_program(&self.shown.as_ref().map_or(path.clone(), |s| s.outside(&path)));
        }
        self.env.find(&self.program).is_some()
    }

    /// The program with its arguments, as one could type it, cut where it gets long.
    fn command_line(&self) -> String {
        const LONG: usize = 400;
        let shown = |word: &OsStr| {
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word.into_owned()
            } else {
                quoted(&word)
            }
        };
        let words = std::iter::once(self.program.as_os_str());
        let words: Vec<_> = words.chain(self.args.iter().map(OsString::as_os_str)).collect();
        let line = words.into_iter().map(shown).collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(LONG) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }
}

/// Returns the descriptors of the jobserver's pipe from MAKEFLAGS: `R,W`.
fn jobserver_ends(command: &Command) -> Option<String> {
    let (_, flags) = command.get_envs().find(|(name, _)| *name == "MAKEFLAGS")?;
    let flags = flags?.to_str()?;
    flags.split_whitespace().find_map(|flag| Some(flag.strip_prefix("--jobserver-auth=")?.into()))
}

/// What is still to be written to a program's standard input.
struct Feed<'a> {
    bytes: &'a [u8],
    pipe: Option<PipeWriter>,
}

impl Feed<'_> {
    /// Writes as much as a pipe that is ready takes without blocking.
    fn write(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.write(&self.bytes[..self.bytes.len().min(PIPE_BUF)]) {
            Ok(written) => self.bytes = &self.bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // It does not read all of it.
            Err(_) => self.bytes = &[],
        }
        self.close_if_done();
    }

    fn close_if_done(&mut self) {
        if self.bytes.is_empty() {
            self.pipe = None;
        }
    }
}

/// A word as a shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
