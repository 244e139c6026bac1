//! Writes whole lines, and goes on if the reader is gone.

use std::io::Write;

/// The maximum length of a line.
const LONGEST: usize = 1000;

/// Writes lines, each with one call.
#[derive(Debug)]
pub struct LineWriter<W> {
    to: W,
    /// Whether the reader is gone. Builds go on without one.
    closed: bool,
}

impl<W: Write> LineWriter<W> {
    /// Returns a writer to `to`.
    pub fn new(to: W) -> Self {
        Self { to, closed: false }
    }

    /// Writes one line. Replaces control characters, which may come from a compiler or a file name, with blanks, and cuts
    /// a line that is too long.
    pub fn line(&mut self, text: &str) {
        let calm = |c: char| if c.is_control() { ' ' } else { c };
        let mut line: String = text.trim_end().chars().take(LONGEST).map(calm).collect();
        line.push('\n');
        if !self.closed {
            let written = self.to.write_all(line.as_bytes()).and_then(|()| self.to.flush());
            self.closed = written.is_err();
        }
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
    fn keeps_a_line_one_line() {
        let mut out = LineWriter::new(Vec::new());
        out.line("a\rb\nc\u{1b}[31m  ");
        out.line(&"x".repeat(5000));
        let text = String::from_utf8(out.into_inner()).expect("text");
        assert!(text.starts_with("a b c [31m\nxxx"));
        assert_eq!(text.lines().map(str::len).max(), Some(LONGEST));
    }

    #[test]
    fn goes_on_when_the_reader_is_gone() {
        struct Gone(usize);
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = LineWriter::new(Gone(0));
        out.line("one");
        out.line("two");
        assert_eq!(out.into_inner().0, 1);
    }
}
