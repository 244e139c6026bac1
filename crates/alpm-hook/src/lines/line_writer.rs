//! Writes whole lines and ignores a closed output.

use std::io::Write;

/// The maximum length of a line in characters.
const LONGEST: usize = 1000;

/// A writer that writes each line with a single call.
#[derive(Debug)]
pub struct LineWriter<W> {
    to: W,
    /// Whether a write has failed. After that, nothing more is written, and builds continue.
    closed: bool,
}

impl<W: Write> LineWriter<W> {
    /// Creates a writer to `to`.
    pub fn new(to: W) -> Self {
        Self { to, closed: false }
    }

    /// Writes one line. Truncates long lines, and replaces control characters, which may come from
    /// a compiler or a file name, with blanks.
    pub fn line(&mut self, text: &str) {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let mut line: String = text.trim_end().chars().take(LONGEST).map(printable).collect();
        line.push('\n');
        if !self.closed {
            let written = self.to.write_all(line.as_bytes()).and_then(|()| self.to.flush());
            self.closed = written.is_err();
        }
    }

    /// Writes each line of a message.
    pub fn lines(&mut self, message: &str) {
        message.lines().for_each(|line| self.line(line));
    }

    /// Returns the underlying writer.
    pub fn into_inner(self) -> W {
        self.to
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn replaces_control_characters_and_truncates() {
        let mut out = LineWriter::new(Vec::new());
        out.line("a\rb\nc\u{1b}[31m  ");
        out.line(&"x".repeat(5000));
        let text = String::from_utf8(out.into_inner()).expect("text");
        assert!(text.starts_with("a b c [31m\nxxx"));
        assert_eq!(text.lines().map(str::len).max(), Some(LONGEST));
    }

    #[test]
    fn stops_writing_after_an_error() {
        struct ClosedPipe(usize);
        impl Write for ClosedPipe {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = LineWriter::new(ClosedPipe(0));
        out.line("one");
        out.line("two");
        assert_eq!(out.into_inner().0, 1);
    }
}
