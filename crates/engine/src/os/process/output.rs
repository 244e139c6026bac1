//! Captures a program's output, or passes it on line by line.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Stdio;

/// The maximum length of a line in bytes. A longer line is passed on in pieces.
const MAX_LINE: usize = 64 * 1024;

/// The destination of a program's standard output and standard error.
pub enum Output<'a> {
    /// Captures the first 1 MiB of each stream separately and discards the rest.
    Capture,
    /// Writes both streams to this file, which must be opened for appending.
    Log(File),
    /// Passes both streams to this function line by line, without the newline. Bytes that are not
    /// valid UTF-8 are replaced with U+FFFD.
    Lines(&'a mut dyn FnMut(&str)),
}

impl Output<'_> {
    /// The maximum number of bytes captured from each stream.
    pub(crate) const KEPT: usize = 1024 * 1024;
}

/// The pipes from which a program's output is read, and the output captured so far.
pub(super) struct Streams<'a> {
    open: Vec<(PipeReader, Stream)>,
    output: Vec<u8>,
    errors: Vec<u8>,
    lines: Option<&'a mut dyn FnMut(&str)>,
}

#[derive(Clone, Copy)]
enum Stream {
    Output,
    Errors,
}

impl<'a> Streams<'a> {
    /// Opens the streams. Also returns the standard output and the standard error for the program.
    pub(super) fn open(output: Output<'a>) -> io::Result<(Self, Stdio, Stdio)> {
        let mut streams =
            Self { open: Vec::new(), output: Vec::new(), errors: Vec::new(), lines: None };
        let (stdout, stderr) = match output {
            Output::Log(file) => (file.try_clone()?.into(), file.into()),
            Output::Capture => {
                (streams.pipe(Stream::Output)?.into(), streams.pipe(Stream::Errors)?.into())
            }
            Output::Lines(lines) => {
                streams.lines = Some(lines);
                let pipe = streams.pipe(Stream::Output)?;
                (pipe.try_clone()?.into(), pipe.into())
            }
        };
        Ok((streams, stdout, stderr))
    }

    fn pipe(&mut self, stream: Stream) -> io::Result<io::PipeWriter> {
        let (reader, writer) = io::pipe()?;
        self.open.push((reader, stream));
        Ok(writer)
    }

    /// Returns true if all streams have been closed.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns the descriptors to watch, in the order that [`Streams::read`] expects.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.iter().map(|(pipe, _)| pipe.as_fd())
    }

    /// Reads once from each stream whose value in `ready` is true.
    ///
    /// The values are in the order of [`Streams::fds`].
    pub(super) fn read(&mut self, ready: &mut impl Iterator<Item = bool>) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        for (mut pipe, stream) in std::mem::take(&mut self.open) {
            if ready.next() != Some(true) {
                self.open.push((pipe, stream));
                continue;
            }
            match pipe.read(&mut buffer) {
                Ok(0) => {}
                Ok(length) => {
                    self.take(&buffer[..length], stream);
                    self.open.push((pipe, stream));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.open.push((pipe, stream));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], stream: Stream) {
        if let Some(lines) = &mut self.lines {
            self.output.extend_from_slice(bytes);
            let mut whole = 0;
            while let Some(length) = first_line(&self.output[whole..]) {
                let line = &self.output[whole..whole + length];
                lines(&String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)));
                whole += length;
            }
            self.output.drain(..whole);
            return;
        }
        let kept = match stream {
            Stream::Output => &mut self.output,
            Stream::Errors => &mut self.errors,
        };
        let room = Output::KEPT.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Returns the captured standard output and standard error.
    ///
    /// With [`Output::Lines`], passes on a last line without a newline, and returns empty vectors.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<u8>) {
        if let Some(lines) = &mut self.lines {
            if !self.output.is_empty() {
                lines(&String::from_utf8_lossy(&self.output));
            }
            self.output.clear();
        }
        (self.output, self.errors)
    }
}

/// Returns the length of the first line including its newline, but at most [`MAX_LINE`]. Returns
/// `None` if the line is incomplete and shorter than that.
fn first_line(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
    end.filter(|end| *end <= MAX_LINE).or((bytes.len() >= MAX_LINE).then_some(MAX_LINE))
}
