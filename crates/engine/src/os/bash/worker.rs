//! A bash process that evaluates files, one request at a time.

use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::os::process::{Environment, Program, RunError, Running, Stop, Tools, ready};

/// The script that bash runs. Its comments describe the protocol.
const SCRIPT: &str = include_str!("worker.sh");

/// The name prefix of variables that set directives. The value of each variable has the form
/// `NAME=value` (dkms-behaviour 3.1).
pub(crate) const DIRECTIVE: &str = "DKMS_DIRECTIVE";

/// The maximum size of a reply in bytes.
const MAX_REPLY: usize = 4 * 1024 * 1024;

/// The maximum number of bytes kept from standard error.
const MAX_COMPLAINT: usize = 4 * 1024;

/// The number of bytes that a pipe accepts without blocking when it is ready for writing.
const PIPE_BUF: usize = 4096;

/// A request to evaluate files.
pub(super) struct ReadRequest<'a> {
    /// The working directory of the evaluation. If it does not exist, `/` replaces it.
    pub(super) dir: &'a Path,
    /// The files to evaluate, in order. A file can use the variables set by the files before it.
    pub(super) files: &'a [&'a Path],
    /// The names (`NAME` or `NAME[3]`) and values of variables to set before the evaluation.
    pub(super) given: Vec<(String, OsString)>,
    /// The names of the variables to return. If empty, all variables that the files set are
    /// returned.
    pub(super) wanted: &'a [&'a str],
}

/// The name, array index and value of a variable. The index of a scalar variable is `0`.
pub type Variable = (String, String, Vec<u8>);

/// The result of evaluating the files of one request.
#[derive(Debug)]
pub struct Reply {
    /// The variables in the order requested, or sorted by name if all were requested. Values from
    /// `DKMS_DIRECTIVE…` variables follow at the end.
    pub variables: Vec<Variable>,
    /// The beginning of standard error; may be empty.
    pub complaint: String,
}

impl Reply {
    /// Returns bash's own messages about `file`. Each has the form `FILE: line N: MESSAGE`.
    ///
    /// Omits the messages of commands that the file runs, because they do not begin with the file's
    /// path. Also omits messages about empty lines in a file with DOS line endings, because such
    /// lines have no effect.
    pub(crate) fn complaints_about(&self, file: &Path) -> Vec<String> {
        let start = format!("{}: ", file.display());
        let lines = self.complaint.lines().filter(|line| line.starts_with(&start));
        lines.filter(|line| !line.contains(r"$'\r': ")).map(str::to_owned).collect()
    }
}

/// The reason that a request failed.
#[derive(Debug)]
pub(super) enum ReadError {
    /// A file ended the shell. Contains the beginning of standard error.
    Ended(String),
    /// The evaluation exceeded the time limit.
    TimedOut,
    /// The reply exceeds [`MAX_REPLY`].
    TooMuch,
}

/// A running bash process that evaluates files.
pub(super) struct Worker {
    running: Running,
    stop: Stop,
    requests: PipeWriter,
    replies: PipeReader,
    errors: PipeReader,
    number: u64,
    /// The number of files that bash has begun to evaluate for the last request.
    pub(super) begun: usize,
}

impl Worker {
    /// Starts a bash process, which is killed when this process ends.
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

    /// Returns true if bash is still running.
    pub(super) fn is_alive(&self) -> bool {
        let ended = [(self.running.ended(), PollFlags::POLLIN)];
        ready(&ended, Some(Instant::now())).is_ok_and(|ready| !ready.contains(&true))
    }

    /// Evaluates the files of a request, within the time limit `patience`.
    ///
    /// # Errors
    /// [`ReadError`] if bash does not send a complete reply. The worker cannot be used after an
    /// error.
    pub(super) fn read_files(
        &mut self,
        request: &ReadRequest<'_>,
        patience: Duration,
    ) -> Result<Reply, ReadError> {
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
            // If polling fails, all descriptors count as ready, and the worker counts as ended.
            let ready = ready(&fds, until).unwrap_or_else(|_| vec![true; fds.len()]);
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(ReadError::TimedOut);
            }
            if self.stop.asked().is_some() {
                return Err(ReadError::Ended("interrupted".into()));
            }
            if ready[1] {
                read_errors(&mut self.errors, &mut complaint);
            }
            let ended = if ready[0] { !reply.read(&mut self.replies) } else { ready[2] };
            if reply.bytes.len() > MAX_REPLY {
                return Err(ReadError::TooMuch);
            }
            let progress = reply.parse(self.number, request.wanted);
            self.begun = reply.begun;
            if ended || progress == Progress::Broken {
                return Err(ReadError::Ended(self.rest_of(complaint)));
            }
            if reply.progress == Progress::Complete {
                let complaint = self.rest_of(complaint);
                return Ok(Reply { variables: reply.variables, complaint });
            }
            if ready.get(3) == Some(&true) {
                let piece = &unsent[..unsent.len().min(PIPE_BUF)];
                unsent = &unsent[self.requests.write(piece).unwrap_or(0)..];
            }
        }
    }

    /// Appends the rest of standard error to `complaint`, and returns the result as text.
    ///
    /// The number of reads is limited, since a background process may keep writing.
    fn rest_of(&mut self, mut complaint: Vec<u8>) -> String {
        for _ in 0..8 {
            let errors = [(self.errors.as_fd(), PollFlags::POLLIN)];
            if ready(&errors, Some(Instant::now())).is_ok_and(|ready| ready.contains(&true)) {
                read_errors(&mut self.errors, &mut complaint);
            }
        }
        String::from_utf8_lossy(complaint.trim_ascii()).into_owned()
    }
}

/// Reads once from `errors` and appends the bytes to `complaint`, up to [`MAX_COMPLAINT`] bytes in
/// total.
fn read_errors(errors: &mut PipeReader, complaint: &mut Vec<u8>) {
    let mut buffer = [0; 16 * 1024];
    let length = errors.read(&mut buffer).unwrap_or(0);
    let room = MAX_COMPLAINT.saturating_sub(complaint.len());
    complaint.extend_from_slice(&buffer[..length.min(room)]);
}

/// Encodes a request in the format that worker.sh reads.
fn encode(number: u64, request: &ReadRequest<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut field = |text: &[u8]| {
        bytes.extend_from_slice(text);
        bytes.push(0);
    };
    field(number.to_string().as_bytes());
    field(request.wanted.join(" ").as_bytes());
    field(request.dir.as_os_str().as_bytes());
    field(if request.files.iter().any(|file| mentions_directive(file)) { b"1" } else { b"" });
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

/// Returns true if `file` contains the prefix of variables that set directives.
fn mentions_directive(file: &Path) -> bool {
    let text = fs::read(file).unwrap_or_default();
    text.windows(DIRECTIVE.len()).any(|part| part == DIRECTIVE.as_bytes())
}

/// The state of a partial reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Progress {
    /// More variables may follow.
    #[default]
    Values,
    /// All variables have been received.
    Done,
    /// All variables have been received, and the subshell has ended.
    Complete,
    /// The subshell ended before it had sent all variables, or the reply is not valid.
    Broken,
}

/// The part of a reply that has been read.
#[derive(Default)]
struct PartialReply {
    bytes: Vec<u8>,
    parsed: usize,
    progress: Progress,
    /// The number of files that bash has begun to evaluate.
    begun: usize,
    variables: Vec<Variable>,
}

impl PartialReply {
    /// Reads once from `replies`. Returns false if no further reply can follow.
    fn read(&mut self, replies: &mut PipeReader) -> bool {
        let mut buffer = [0; 64 * 1024];
        let length = replies.read(&mut buffer).unwrap_or(0);
        self.bytes.extend_from_slice(&buffer[..length]);
        length > 0
    }

    /// Parses the complete fields received so far, and returns the new state of the reply.
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
                    let complete =
                        progress == Progress::Done && of == number.to_string().as_bytes();
                    self.progress = if complete { Progress::Complete } else { Progress::Broken };
                }
                _ => self.progress = Progress::Broken,
            }
            self.parsed = at;
        }
        self.progress
    }
}
