//! Starts programs. The rest of the engine starts programs only through this module.
//!
//! The caller specifies a program's complete environment. The captured output is limited, and the
//! run time can be limited. A confined program and its descendants are killed when this run ends.

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
pub(crate) use ended::SIGNALLED;
pub use ended::{Ended, How, RunError};
pub use environment::Environment;
pub(crate) use environment::is_program;
pub use output::Output;
pub use stop::Stop;
pub use stop::exit_code;
pub use tools::Tools;

pub(crate) use child::{Running, ready};
pub(crate) use confinement::{OwnMounts, OwnTemporary, paths_below};
use descendants::Mark;
use output::Streams;

/// The time limit for reading the remaining output after a program has ended or been killed.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// The number of bytes that a pipe accepts without blocking when it is ready for writing.
const PIPE_BUF: usize = 4096;

/// A program to run.
///
/// Standard input is empty unless [`Program::stdin`] sets it. Standard output and standard error
/// are never inherited, because pacman waits until every process has closed the output streams of
/// the hook.
pub struct Program<'a> {
    program: PathBuf,
    args: Vec<OsString>,
    env: &'a Environment,
    cwd: Option<PathBuf>,
    stdin: Vec<u8>,
    output: Output<'a>,
    deadline: Option<Duration>,
    confined: Option<&'a Tools>,
    mounts: Option<OwnMounts>,
}

impl<'a> Program<'a> {
    /// Creates a program from a path, or from a plain name that is looked up in the PATH of `env`.
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
            confined: None,
            mounts: None,
        }
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets the working directory. The default is the working directory of this process.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Sets the bytes that the program reads from standard input. The default is none.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Sets the destination of standard output and standard error. The default is
    /// [`Output::Capture`].
    #[must_use]
    pub fn output(mut self, output: Output<'a>) -> Self {
        self.output = output;
        self
    }

    /// Limits the run time: after `deadline`, the program and its descendants are killed.
    ///
    /// There is no limit by default, or if `deadline` is `Duration::MAX`.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Confines the program: when this process ends, the program and its descendants are killed.
    ///
    /// They are killed even if SIGKILL ends this process, and also if this process receives a
    /// signal to stop (see [`Stop`]). When the program itself ends, its remaining background
    /// processes are killed. Not every machine supports all of this (see [`Bond`]).
    #[must_use]
    pub fn confined(mut self, tools: &'a Tools) -> Self {
        self.confined = Some(tools);
        self
    }

    /// Gives the program and its descendants mounts of their own.
    ///
    /// The caller must also confine the program, and must first check that
    /// [`Confinement::has_own_mounts`] returns true. The program's working directory is entered
    /// after mounting.
    #[must_use]
    pub(crate) fn mounts(mut self, mounts: OwnMounts) -> Self {
        self.mounts = Some(mounts);
        self
    }

    /// Runs the program and waits for it to end.
    ///
    /// # Errors
    /// [`RunError`] if the program could not be started or watched. It is not an error if the
    /// program fails or times out (see [`Ended::how`]).
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
        let (mut killed, mut ended) = (None, false);
        let mut drain_until = None;
        while !ended || !streams.is_empty() {
            let stop = self.confined.and_then(|tools| tools.stop.fd());
            let stop = stop.filter(|_| !ended && killed.is_none());
            let mut fds: Vec<_> = stop.map(|fd| (fd, PollFlags::POLLIN)).into_iter().collect();
            if !ended {
                fds.push((running.ended(), PollFlags::POLLIN));
            }
            fds.extend(streams.fds().map(|fd| (fd, PollFlags::POLLIN)));
            if let Some(pipe) = feed.pipe.as_ref().filter(|_| !ended) {
                fds.push((pipe.as_fd(), PollFlags::POLLOUT));
            }
            let mut ready = ready(&fds, until).map_err(failed)?.into_iter();
            drop(fds);
            let timed_out = !ready.as_slice().contains(&true);
            let stopped = stop.is_some() && ready.next() == Some(true);
            if timed_out || stopped {
                if ended || killed.is_some() {
                    break;
                }
                killed = Some(if stopped { How::Interrupted } else { How::TimedOut });
                running.kill();
                until = Some(Instant::now() + DRAIN_TIMEOUT);
                continue;
            }
            if !ended && ready.next() == Some(true) {
                // All of the program's output is in the pipes now. Another process may keep the
                // pipes open forever, so read only the available bytes.
                ended = true;
                until = Some(Instant::now());
                drain_until = Some(Instant::now() + DRAIN_TIMEOUT);
            }
            streams.read(&mut ready).map_err(failed)?;
            if !ended && ready.next() == Some(true) {
                feed.write();
            }
            if drain_until.is_some_and(|limit| Instant::now() > limit) {
                break;
            }
        }
        if self.confined.is_some() {
            running.kill_rest();
        }
        let status = running.reap().map_err(failed)?;
        let how = killed.unwrap_or_else(|| How::of(status));
        let (output, errors) = streams.finish();
        Ok(Ended { how, output, errors, elapsed: started.elapsed() })
    }

    /// Starts the program with the given streams and returns without waiting for it.
    #[expect(clippy::disallowed_methods, reason = "the only place that starts programs")]
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
            let (mounts, cwd) = (self.mounts.as_ref(), self.cwd.as_deref());
            confinement::words(tools, bond, mounts, cwd, self.env)
        });
        words.push(self.program.clone().into());
        words.extend(self.args.iter().cloned());
        let mut words = words.into_iter();

        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).env_clear().envs(self.env.iter()).process_group(0);
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        if let Some(dir) = &self.cwd {
            // PWD keeps symbolic links in the path, as after a shell's `cd`.
            command.current_dir(dir).env("PWD", dir);
        }
        let mark = self.confined.filter(|_| bond != Bond::Namespace).map(|_| Mark::new());
        if let Some(mark) = &mark {
            command.env(descendants::VARIABLE, mark.value());
        }
        let running = Running::watch(bond, mark, || command.spawn());
        running.map_err(|source| RunError::Io { line, source })
    }

    /// Returns true if the program exists and is executable.
    ///
    /// This is checked in advance, because the wrapper of a confined program starts even if that
    /// program does not exist, and exits with status 127.
    fn exists(&self) -> bool {
        if self.program.components().count() > 1 {
            let base = self.cwd.as_deref().unwrap_or(Path::new(""));
            let path = base.join(&self.program);
            return is_program(&self.mounts.as_ref().map_or(path.clone(), |it| it.outside(&path)));
        }
        self.env.find(&self.program).is_some()
    }

    /// Returns the program and its arguments, quoted for a shell. A long line is truncated.
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

/// The part of a program's standard input that has not been written yet.
struct Feed<'a> {
    bytes: &'a [u8],
    pipe: Option<PipeWriter>,
}

impl Feed<'_> {
    /// Writes as many bytes as the pipe accepts without blocking. The pipe must be ready.
    fn write(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.write(&self.bytes[..self.bytes.len().min(PIPE_BUF)]) {
            Ok(written) => self.bytes = &self.bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The program has closed its standard input.
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

/// Returns `word` in single quotes, for a shell.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
