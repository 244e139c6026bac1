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
    /// The text without trailing white space.
    pub text: String,
}

/// The prefix of the line that precedes the output of a step.
const COMMAND: &str = "# command: ";

/// The prefix of the line that follows the output of a step.
const EXIT_CODE: &str = "# exit code: ";

/// Returns the byte range of the last step's output in a log. Empty if there is no step.
pub fn last_step(log: &Path) -> Range<u64> {
    let (mut step, mut is_first) = (0..0, false);
    for line in read(log, &(0..u64::MAX)) {
        if is_first {
            step = line.at..u64::MAX;
        }
        is_first = line.text.starts_with(COMMAND);
        if line.text.starts_with(EXIT_CODE) {
            step.end = line.at;
        }
    }
    step
}

/// Reads the lines in the byte range `range` of the file `log`. Yields no line if the log cannot be
/// read.
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

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "head\n\nRunning the pre_build script\n# command: pre\none\n\n# exit code: 0\n\
                       \nBuilding module(s)\n# command: make\ntwo\nthree\n\n# exit code: 2\n---\n";

    #[test]
    fn finds_the_output_of_the_last_step() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("make.log");
        let mut texts = Vec::new();
        for text in [LOG, LOG.split_once("\n# exit code: 2").unwrap().0, "no step\n"] {
            std::fs::write(&log, text).unwrap();
            let lines = read(&log, &last_step(&log)).map(|line| line.text);
            texts.push(lines.collect::<Vec<_>>().join("|"));
        }
        assert_eq!(texts, ["two|three|", "two|three", ""]);
        assert_eq!(last_step(&dir.path().join("none")), 0..0);
    }
}
