//! Runs programs with a time limit and captures their output.

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The time limit of a program. It is generous because the machine may be busy.
const LIMIT: Duration = Duration::from_secs(300);

/// The time that output may stay open after the program exits. If it stays open longer, a child of
/// the program still holds it.
const LINGER: Duration = Duration::from_secs(10);

/// The message of pacman if the program of a hook exits with a code other than 0.
const HOOK_FAILED: &str = "error: command failed to execute correctly";

/// The output and the exit code of a program that has exited.
#[derive(Debug, Clone)]
pub struct Completed {
    /// The command line, for assertion messages.
    pub command: String,
    /// The exit code, or 128 plus the number of the signal that killed the program.
    pub code: i32,
    /// Standard output and standard error, interleaved, with invalid UTF-8 replaced.
    pub text: String,
}

impl Completed {
    /// Asserts that the exit code is 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Asserts that the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code of `{}`; output:\n{}", self.command, self.text);
        self
    }

    /// Asserts that the output contains `text`.
    #[track_caller]
    pub fn has(self, text: &str) -> Self {
        assert!(
            self.text.contains(text),
            "{text:?} is missing in the output of `{}`:\n{}",
            self.command,
            self.text
        );
        self
    }

    /// Asserts that the output does not contain `text`.
    #[track_caller]
    pub fn lacks(self, text: &str) -> Self {
        assert!(
            !self.text.contains(text),
            "{text:?} is in the output of `{}`:\n{}",
            self.command,
            self.text
        );
        self
    }

    /// Asserts that no hook of this transaction failed. pacman exits with 0 either way.
    #[track_caller]
    pub fn hooks_succeed(self) -> Self {
        self.lacks(HOOK_FAILED)
    }

    /// Asserts that a hook of this transaction failed.
    #[track_caller]
    pub fn hooks_fail(self) -> Self {
        self.has(HOOK_FAILED)
    }

    /// Returns the lines of the output.
    pub fn lines(&self) -> Vec<&str> {
        self.text.lines().collect()
    }
}

/// A running program.
#[derive(Debug)]
pub struct Started {
    command: String,
    child: Child,
    output: Receiver<Vec<u8>>,
    deadline: Instant,
}

impl Started {
    /// Returns the process ID, which is the same inside and outside a root.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the program with SIGKILL, but not its children.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill the program");
    }

    /// Returns true if the program has exited or was killed.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("poll the program").is_some()
    }

    /// Sets the time limit, counted from now.
    pub fn within(mut self, limit: Duration) -> Self {
        self.deadline = Instant::now() + limit;
        self
    }

    /// Waits until the program exits.
    ///
    /// Panics if that takes too long, or if a child of the program keeps its output open: pacman
    /// would wait for that child.
    #[track_caller]
    pub fn finish(mut self) -> Completed {
        let mut text = Vec::new();
        let mut deadline = self.deadline;
        let mut status = None;
        loop {
            match self.output.recv_timeout(Duration::from_millis(20)) {
                Ok(bytes) => text.extend(bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    let kind = if status.is_some() {
                        "left a child that keeps its output open"
                    } else {
                        "timed out"
                    };
                    panic!(
                        "`{}` {kind}; output:\n{}",
                        self.command,
                        String::from_utf8_lossy(&text)
                    );
                }
            }
            if status.is_none() {
                status = self.child.try_wait().expect("poll the program");
                if status.is_some() {
                    deadline = Instant::now() + LINGER;
                }
            }
        }
        let status = status.unwrap_or_else(|| self.child.wait().expect("wait for the program"));
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Completed { command: self.command, code, text: String::from_utf8_lossy(&text).into_owned() }
    }
}

/// Starts `program` with an empty standard input and a fixed environment.
pub(crate) fn start(program: &str, args: &[&str]) -> Started {
    let (reader, writer) = io::pipe().expect("create a pipe");
    #[expect(clippy::disallowed_methods, reason = "stories run programs only here")]
    let mut command = Command::new("env");
    command
        // The stories may have been started with these signals ignored, as by `nohup` or as a
        // background job of `sh`.
        .args(["--default-signal=INT,HUP,TERM", program])
        .args(args)
        .env_clear()
        // As in a root shell: no MAKEFLAGS, no locale, no variables of cargo.
        .envs([
            ("HOME", "/root"),
            ("LC_ALL", "C"),
            ("TERM", "dumb"),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ])
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(writer.try_clone().expect("duplicate a pipe"))
        .stdout(writer);
    let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    // `command` owns write ends of the pipe. The reader sees the end of file only without them.
    drop(command);
    let command = [&[program], args].concat().join(" ");
    Started { command, child, output: read_in_thread(reader), deadline: Instant::now() + LIMIT }
}

/// Runs `program` and waits until it exits.
#[track_caller]
pub(crate) fn run(program: &str, args: &[&str]) -> Completed {
    start(program, args).finish()
}

fn read_in_thread(mut reader: io::PipeReader) -> Receiver<Vec<u8>> {
    let (sender, output) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    output
}
