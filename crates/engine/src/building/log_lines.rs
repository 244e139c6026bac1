//! Reads build logs line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

/// The maximum number of bytes read as one line. A longer line, such as the command line of a
/// linker, is read in pieces.
const MAX_READ: u64 = 16 * 1024;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The position of the line in the file, in bytes.
    pub at: u64,
    /// The text, without blanks and the newline at its end.
    pub text: String,
}

/// Reads the lines in the part `range` of the file `log`. Reads none if the log cannot be read.
pub fn read(log: &Path, range: &Range<u64>) -> impl Iterator<Item = LogLine> + use<> {
    let (start, length) = (range.start, range.end.saturating_sub(range.start));
    let open = || {
        let mut file = File::open(log).ok()?;
        file.seek(SeekFrom::Start(start)).ok()?;
        Some(BufReader::new(file.take(length)))
    };
    let (mut reader, mut next) = (open(), start);
    std::iter::from_fn(move || {
        let mut bytes = Vec::new();
        let read = reader.as_mut()?.by_ref().take(MAX_READ).read_until(b'\n', &mut bytes).ok()?;
        let at = next;
        next += u64::try_from(read).ok()?;
        let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        (read > 0).then_some(LogLine { at, text })
    })
}
