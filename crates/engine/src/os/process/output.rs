//! The output of a program, kept or handed on.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Stdio;

/// A line longer than this is handed on in pieces.
const LONGEST_LINE: usize = 64 * 1024;

/// Where a program's standard output and error go.
pub enum Output<'a> {
    /// Both are kept, each for itself, up to 1 MiB; the rest is dropped.
    Capture,
    /// Both are written to this file, in their order. Open it for appending.
    Log(File),
    /// Both go to this function, in their order and line by line, without the line's end and
    /// with what is not UTF-8 replaced.
    Lines(&'a mut dyn FnMut(&str)),
}

impl Output<'_> {
    /// How many bytes of each stream are kept.
    pub(crate) const KEPT: usize = 1024 * 1024;
}

/// Our ends of a program's output.
pub(super) struct Streams<'a> {
    open: Vec<(PipeReader, Which)>,
    output: Vec<u8>,
    errors: Vec<u8>,
    lines: Option<&'a mut dyn FnMut(&str)>,
}

#[derive(Clone, Copy)]
enum Which {
    Output,
    Errors,
}

impl<'a> Streams<'a> {
    /// Our ends, and the two that the program gets.
    pub(super) fn open(output: Output<'a>) -> io::Result<(Self, Stdio, Stdio)> {
        let mut streams =
            Self { open: Vec::new(), output: Vec::new(), errors: Vec::new(), lines: None };
        let (stdout, stderr) = match output {
            Output::Log(file) => (file.try_clone()?.into(), file.into()),
            Output::Capture => {
                (streams.pipe(Which::Output)?.into(), streams.pipe(Which::Errors)?.into())
            }
            Output::Lines(lines) => {
                streams.lines = Some(lines);
                let pipe = streams.pipe(Which::Output)?;
                (pipe.try_clone()?.into(), pipe.into())
            }
        };
        Ok((streams, stdout, stderr))
    }

    fn pipe(&mut self, which: Which) -> io::Result<io::PipeWriter> {
        let (ours, theirs) = io::pipe()?;
        self.open.push((ours, which));
        Ok(theirs)
    }

    /// Returns true if nothing can come any more.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The descriptors to watch, in the order that [`Streams::read`] wants.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.iter().map(|(pipe, _)| pipe.as_fd())
    }

    /// Reads what is there from the streams that are ready.
    pub(super) fn read(&mut self, ready: &mut impl Iterator<Item = bool>) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        for (mut pipe, which) in std::mem::take(&mut self.open) {
            if ready.next() != Some(true) {
                self.open.push((pipe, which));
                continue;
            }
            match pipe.read(&mut buffer) {
                Ok(0) => {}
                Ok(length) => {
                    self.take(&buffer[..length], which);
                    self.open.push((pipe, which));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.open.push((pipe, which));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], which: Which) {
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
        let kept = match which {
            Which::Output => &mut self.output,
            Which::Errors => &mut self.errors,
        };
        let room = Output::KEPT.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// What was kept of standard output and error; a last line without an end is handed on.
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

/// The length of the first line with its end, if there is a whole one (or a very long one).
fn first_line(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
    end.filter(|end| *end <= LONGEST_LINE).or((bytes.len() >= LONGEST_LINE).then_some(LONGEST_LINE))
}
