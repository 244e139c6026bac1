//! One bash process that reads files for us, one request at a time.

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::os::process::{Environment, Program, RunError, Running, Stop, Tools, ready};

/// What bash runs; see there for the protocol.
const SCRIPT: &str = include_str!("worker.sh");

/// The most that the files of one request may set.
const LONGEST_REPLY: usize = 4 * 1024 * 1024;

/// How much of what a file complains about is kept.
const LONGEST_COMPLAINT: usize = 4 * 1024;

/// A pipe that is ready for writing takes at least this much at once (`PIPE_BUF`).
const PIPE_BUF: usize = 4096;

/// A request to bash.
pub(super) struct ReadRequest<'a> {
    /// The files, in order: each finds what those before it have set.
    pub(super) files: &'a [&'a Path],
    /// Variables that are set before, by name (`NAME` or `NAME[3]`).
    pub(super) given: Vec<(String, OsString)>,
    /// The names of the variables to return; none for all that the files set.
    pub(super) wanted: &'a [&'a str],
}

/// A variable that a file has set: name, index as bash writes it, value.
pub type Variable = (String, String, Vec<u8>);

/// What the files of one request have set.
#[derive(Debug)]
pub struct Reply {
    /// The variables that are set, in the order of their names.
    pub variables: Vec<Variable>,
    /// The beginning of what it wrote to standard error.
    pub complaint: String,
}

/// Why there is no [`Reply`].
#[derive(Debug)]
pub(super) enum Trouble {
    /// The file ended the shell that read it, complaining like this.
    Ended(String),
    /// The deadline has passed.
    TimedOut,
    /// It set more than [`LONGEST_REPLY`].
    TooMuch,
}

/// A running bash.
pub(super) struct Worker {
    running: Running,
    stop: Stop,
    requests: PipeWriter,
    replies: PipeReader,
    errors: PipeReader,
    number: u64,
    /// How many files of the last request were begun.
    pub(super) begun: usize,
}

impl Worker {
    /// Starts a bash that ends with us.
    pub(super) fn start(tools: &Tools, env: &Environment) -> Result<Self, RunError> {
        let program = Program::new(&tools.bash, env)
            .args(["-p", "-c", SCRIPT, "dkms.conf"])
            .cwd("/")
            .confined(tools);
        let pipes = || io::Result::Ok((io::pipe()?, io::pipe()?, io::pipe()?));
        let failed = |source| RunError::Io { line: "bash".into(), source };
        let (stdin, stdout, stderr) = pipes().map_err(failed)?;
        let running = program.start(stdin.0.into(), stdout.1.into(), stderr.1.into())?;
        let (requests, replies, errors) = (stdin.1, stdout.0, stderr.0);
        let stop = tools.stop.clone();
        Ok(Self { running, stop, requests, replies, errors, number: 0, begun: 0 })
    }

    /// Returns true if it still waits for requests.
    pub(super) fn is_alive(&self) -> bool {
        let ended = [(self.running.ended(), PollFlags::POLLIN)];
        ready(&ended, Some(Instant::now())).is_ok_and(|ready| !ready.contains(&true))
    }

    /// Lets bash read one file. After a [`Trouble`] the worker is of no more use.
    pub(super) fn read_files(
        &mut self,
        request: &ReadRequest<'_>,
        patience: Duration,
    ) -> Result<Reply, Trouble> {
        let until = Instant::now().checked_add(patience);
        self.number += 1;
        let encoded = encode(self.number, request);
        let mut unsent = encoded.as_slice();
        let mut reply = PartialReply::default();
        let mut complaint = Vec::new();
        loop {
            let mut fds = vec![
                (self.replies.as_fd(), PollFlags::POLLIN),
                (self.errors.as_fd(), PollFlags::POLLIN),
                (self.running.ended(), PollFlags::POLLIN),
            ];
            if !unsent.is_empty() {
                fds.push((self.requests.as_fd(), PollFlags::POLLOUT));
            }
            fds.extend(self.stop.fd().map(|fd| (fd, PollFlags::POLLIN)));
            // A descriptor that cannot be waited for is as good as a dead worker.
            let ready = ready(&fds, until).unwrap_or_else(|_| vec![true; fds.len()]);
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(Trouble::TimedOut);
            }
            if self.stop.asked().is_some() {
                return Err(Trouble::Ended("interrupted".into()));
            }
            if ready[1] {
                keep(&mut self.errors, &mut complaint);
            }
            let ended = if ready[0] { !reply.read(&mut self.replies) } else { ready[2] };
            if reply.bytes.len() > LONGEST_REPLY {
                return Err(Trouble::TooMuch);
            }
            let progress = reply.parse(self.number, request.wanted);
            self.begun = reply.begun;
            if ended || progress == Progress::Broken {
                return Err(Trouble::Ended(self.all_of(complaint)));
            }
            if reply.progress == Progress::Whole {
                let complaint = self.all_of(complaint);
                return Ok(Reply { variables: reply.variables, complaint });
            }
            if ready.get(3) == Some(&true) {
                let piece = &unsent[..unsent.len().min(PIPE_BUF)];
                unsent = &unsent[self.requests.write(piece).unwrap_or(0)..];
            }
        }
    }

    /// The complaint with what is still in the pipe. A background process may go on writing: more
    /// than a pipe holds is not read.
    fn all_of(&mut self, mut complaint: Vec<u8>) -> String {
        for _ in 0..8 {
            let errors = [(self.errors.as_fd(), PollFlags::POLLIN)];
            if ready(&errors, Some(Instant::now())).is_ok_and(|ready| ready.contains(&true)) {
                keep(&mut self.errors, &mut complaint);
            }
        }
        String::from_utf8_lossy(complaint.trim_ascii()).into_owned()
    }
}

/// Takes a piece of standard error.
fn keep(errors: &mut PipeReader, complaint: &mut Vec<u8>) {
    let mut buffer = [0; 16 * 1024];
    let length = errors.read(&mut buffer).unwrap_or(0);
    let room = LONGEST_COMPLAINT.saturating_sub(complaint.len());
    complaint.extend_from_slice(&buffer[..length.min(room)]);
}

/// The bytes of a request.
fn encode(number: u64, request: &ReadRequest<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut field = |text: &[u8]| {
        bytes.extend_from_slice(text);
        bytes.push(0);
    };
    field(number.to_string().as_bytes());
    field(request.wanted.join(" ").as_bytes());
    for (name, value) in &request.given {
        field(name.as_bytes());
        field(value.as_bytes());
    }
    field(b"");
    for file in request.files {
        field(file.as_os_str().as_bytes());
    }
    field(b"");
    bytes
}

/// The progress of a reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Values,
    /// All variables were returned.
    Done,
    /// The shell that read it has ended after that.
    Whole,
    /// It has ended before, or wrote something else.
    Broken,
}

/// The part of a reply that has been read.
#[derive(Default)]
struct PartialReply {
    bytes: Vec<u8>,
    parsed: usize,
    progress: Progress,
    /// How many files were begun.
    begun: usize,
    variables: Vec<Variable>,
}

impl PartialReply {
    /// Reads what is there; returns true if there was anything.
    fn read(&mut self, replies: &mut PipeReader) -> bool {
        let mut buffer = [0; 64 * 1024];
        let length = replies.read(&mut buffer).unwrap_or(0);
        self.bytes.extend_from_slice(&buffer[..length]);
        length > 0
    }

    /// Parses what is there, as far as it is complete.
    fn parse(&mut self, number: u64, wanted: &[&str]) -> Progress {
        let mut at = self.parsed;
        while matches!(self.progress, Progress::Values | Progress::Done) {
            let mut field = || {
                let rest = &self.bytes[at..];
                let length = rest.iter().position(|&byte| byte == 0)?;
                at += length + 1;
                Some(&rest[..length])
            };
            let Some(kind) = field() else { break };
            match (kind, self.progress) {
                (b"file", Progress::Values) => self.begun += 1,
                (b"value", Progress::Values) => {
                    let (Some(name), Some(index), Some(value)) = (field(), field(), field()) else {
                        break;
                    };
                    let is_wanted = |wanted: &&str| wanted.as_bytes() == name;
                    if !wanted.is_empty() && !wanted.iter().any(is_wanted) {
                        self.progress = Progress::Broken;
                        break;
                    }
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    self.variables.push((text(name), text(index), value.to_owned()));
                }
                (b"done", Progress::Values) => self.progress = Progress::Done,
                (b"end", progress) => {
                    let (Some(of), Some(_status)) = (field(), field()) else { break };
                    let whole = progress == Progress::Done && of == number.to_string().as_bytes();
                    self.progress = if whole { Progress::Whole } else { Progress::Broken };
                }
                _ => self.progress = Progress::Broken,
            }
            self.parsed = at;
        }
        self.progress
    }
}
