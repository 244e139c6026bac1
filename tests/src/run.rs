//! Runs programs with a time limit and records their output.

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything in a story may take; far more than it should, since the machine may be busy.
const LIMIT: Duration = Duration::from_secs(300);

/// How long output may stay open after its program ended. Longer means that a child was left behind holding it.
const LINGER: Duration = Duration::from_secs(10);

/// What pacman says when a hook's program exits with anything but 0.
const HOOK_FAILED: &str = "error: command failed to execute correctly";

/// The output of a program that has ended, and its exit code.
#[derive(Debug, Clone)]
pub struct Completed {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; 128 and more is a signal, as in a shell.
    pub code: i32,
    /// Standard output and standard error as they came, with invalid UTF-8 replaced.
    pub text: String,
}

impl Completed {
    /// Asserts that the program succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Asserts on the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code of `{}`, which said:\n{}", self.command, self.text);
        self
    }

    /// Asserts that the output holds `text`.
    #[track_caller]
    pub fn has(self, text: &str) -> Self {
        assert!(
            self.text.contains(text),
            "`{}` does not say {text:?}:\n{}",
            self.command,
            self.text
        );
        self
    }

    /// Asserts that the output does not hold `text`.
    #[track_caller]
    pub fn lacks(self, text: &str) -> Self {
        assert!(!self.text.contains(text), "`{}` says {text:?}:\n{}", self.command, self.text);
        self
    }

    /// Asserts that no hook of this transaction failed. (pacman itself succeeds either way.)
    #[track_caller]
    pub fn hooks_succeed(self) -> Self {
        self.lacks(HOOK_FAILED)
    }

    /// Asserts that a hook of this transaction failed.
    #[track_caller]
    pub fn hooks_fail(self) -> Self {
        self.has(HOOK_FAILED)
    }

    /// The lines of the output.
    pub fn lines(&self) -> Vec<&str> {
        self.text.lines().collect()
    }
}

/// A program that is still running, for stories that interrupt it.
#[derive(Debug)]
pub struct Started {
    command: String,
    child: Child,
    heard: Receiver<Vec<u8>>,
    deadline: Instant,
}

impl Started {
    /// Its process id, the same inside and outside of a root.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL; its children live on, as after a real kill.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill a program of ours");
    }

    /// Whether it has ended by itself or was killed.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("ask for a program of ours").is_some()
    }

    /// Gives it this long from now on, for what takes minutes even when all is well.
    pub fn within(mut self, limit: Duration) -> Self {
        self.deadline = Instant::now() + limit;
        self
    }

    /// Waits for its end.
    ///
    /// Fails the story when it takes too long, or when a child that it left behind keeps its output open: pacman would
    /// wait for that child.
    #[track_caller]
    pub fn finish(mut self) -> Completed {
        let mut text = Vec::new();
        let mut deadline = self.deadline;
        let mut status = None;
        loop {
            match self.heard.recv_timeout(Duration::from_millis(20)) {
                Ok(bytes) => text.extend(bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    let kind = if status.is_some() {
                        "left a child that holds its output"
                    } else {
                        "does not end"
                    };
                    panic!(
                        "`{}` {kind}; it said:\n{}",
                        self.command,
                        String::from_utf8_lossy(&text)
                    );
                }
            }
            if status.is_none() {
                status = self.child.try_wait().expect("ask for a program of ours");
                if status.is_some() {
                    deadline = Instant::now() + LINGER;
                }
            }
        }
        let status =
            status.unwrap_or_else(|| self.child.wait().expect("wait for a program of ours"));
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Completed { command: self.command, code, text: String::from_utf8_lossy(&text).into_owned() }
    }
}

/// Starts `program`, with nothing on its standard input and none of our own environment.
pub(crate) fn start(program: &str, args: &[&str]) -> Started {
    let (reader, writer) = io::pipe().expect("open a pipe");
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place where stories run programs"
    )]
    let mut command = Command::new("env");
    command
        // Whoever started the stories may have these ignored, as `nohup` and a background job of `sh` do.
        .args(["--default-signal=INT,HUP,TERM", program])
        .args(args)
        .env_clear()
        // No MAKEFLAGS, no locale, nothing of cargo's: what a user's root shell would give to pacman.
        .envs([
            ("HOME", "/root"),
            ("LC_ALL", "C"),
            ("TERM", "dumb"),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ])
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(writer.try_clone().expect("share a pipe"))
        .stdout(writer);
    let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    // Our own ends of the pipe live in `command`; end of file is reached only without them.
    drop(command);
    let command = [&[program], args].concat().join(" ");
    Started { command, child, heard: listen(reader), deadline: Instant::now() + LIMIT }
}

/// Runs `program` to its end.
#[track_caller]
pub(crate) fn run(program: &str, args: &[&str]) -> Completed {
    start(program, args).finish()
}

fn listen(mut reader: io::PipeReader) -> Receiver<Vec<u8>> {
    let (say, heard) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            if say.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    heard
}
