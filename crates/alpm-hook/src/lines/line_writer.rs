//! Whole lines, written to somebody who may have stopped reading.

use std::io::Write;

/// A line that is longer says nothing more to anybody.
const LONGEST: usize = 1000;

/// Writes lines, each with one call.
#[derive(Debug)]
pub struct Out<W> {
    to: W,
    /// Whether nobody reads any more. That is no reason to leave modules unbuilt.
    deaf: bool,
}

impl<W: Write> Out<W> {
    /// Lines that go to `to`.
    pub fn new(to: W) -> Self {
        Self { to, deaf: false }
    }

    /// Writes one line. Control characters, which could come from a compiler or a file name,
    /// become blanks; what is too long is cut.
    pub fn line(&mut self, text: &str) {
        let calm = |c: char| if c.is_control() { ' ' } else { c };
        let mut line: String = text.trim_end().chars().take(LONGEST).map(calm).collect();
        line.push('\n');
        if !self.deaf {
            let written = self.to.write_all(line.as_bytes()).and_then(|()| self.to.flush());
            self.deaf = written.is_err();
        }
    }

    /// What the lines went to.
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
        let mut out = Out::new(Vec::new());
        out.line("a\rb\nc\u{1b}[31m  ");
        out.line(&"x".repeat(5000));
        let text = String::from_utf8(out.into_inner()).expect("text");
        assert!(text.starts_with("a b c [31m\nxxx"));
        assert_eq!(text.lines().map(str::len).max(), Some(LONGEST));
    }

    #[test]
    fn goes_on_when_nobody_reads() {
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
        let mut out = Out::new(Gone(0));
        out.line("one");
        out.line("two");
        assert_eq!(out.into_inner().0, 1);
    }
}
