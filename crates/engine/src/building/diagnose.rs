//! Finds the line in a build log that explains why the build failed.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use regex::{Regex, RegexSet};

/// The kind of problem that made a build fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The disk is full, or a quota is exceeded.
    DiskFull,
    /// A program could not allocate memory.
    Memory,
    /// The compiler was killed, usually because memory ran out.
    Killed,
    /// A process has too many open files.
    TooManyFiles,
    /// The limit on processes prevented a program from starting another one.
    TooManyProcesses,
    /// A file exceeds the limit on file sizes.
    FileTooLarge,
    /// The machine does not let a program be confined.
    NotConfined,
    /// A file cannot be written because its file system is read-only.
    ReadOnly,
    /// A file cannot be read, written or executed.
    Denied,
    /// A download failed.
    Network,
    /// The compiler rejects the source.
    Source,
    /// The linker rejects the objects.
    Link,
    /// A module uses a symbol that the kernel does not export, or does not export to this module.
    Symbol,
    /// A program is not installed.
    MissingProgram,
    /// A patch does not apply.
    Patch,
    /// The Makefile stops with an error.
    Makefile,
    /// An error of another kind.
    Other,
}

/// The explanation of a failed build, found in its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    pub cause: Cause,
    /// The line of the log that reports the error, with paths relative to the build directory.
    pub line: String,
}

impl Cause {
    /// Returns the name of the limit that was reached, or `None` if the build failed for another
    /// reason.
    #[must_use]
    pub fn limit(self) -> Option<&'static str> {
        match self {
            Self::TooManyFiles => Some("open files (ulimit -n)"),
            Self::TooManyProcesses => Some("processes (ulimit -u, or pids.max of the cgroup)"),
            Self::FileTooLarge => Some("file size (ulimit -f)"),
            _ => None,
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// The maximum length of the displayed line, in characters.
const MAX_SHOWN: usize = 300;

/// The maximum number of bytes read as one line. A longer line, such as the command line of a
/// linker, is read in pieces.
const MAX_READ: u64 = 16 * 1024;

/// Patterns of lines that never explain a failure: warnings, make's reports of failed recipes and
/// of directories, kbuild's progress, and logged command lines.
const NOISE: [&str; 9] = [
    r"(?i)\bwarning: ",
    // gcc in other languages: warnings and notes
    r"^[^\s:][^:]*:\d+:\d+: (?i:warnung|anmerkung|attention|avertissement|note|remarque|aviso|advertencia|nota|avviso|varning|ostrzeżenie|uwaga|uyarı|предупреждение|замечание|警告|附注|備註|경고)(?:\s|:|：)",
    // "Error" in any language
    r"\*\*\* \[.*\] \S+ \d+$",
    r"\*\*\* Waiting for unfinished jobs",
    r"^make(?:\[\d+\])?: (?:Entering|Leaving) directory ",
    r"^\s+[A-Z]+(?: \[M\])?\s+\S+$",
    r"^[\s~^|+-]*$",
    r"^\w+: (?:all|some) warnings being treated as errors$|^compilation terminated\.$",
    r"^# (?:command|exit code|elapsed time): ",
];

/// Patterns of error messages, each with its rank and its cause.
///
/// Specific messages have low ranks: the first line with the lowest rank explains the failure. If
/// several patterns match a line, the first pattern determines the rank and the cause.
const SIGNS: [(u8, Cause, &str); 28] = [
    // dkms-confine: fork(2) reports EAGAIN, and unshare(2) reports ENOSPC for a limit of namespaces
    (1, Cause::TooManyProcesses, r"^alpm-dkms: cannot confine .*(?:unavailable|No space left)"),
    (1, Cause::NotConfined, r"^alpm-dkms: cannot confine "),
    (1, Cause::DiskFull, r"No space left on device|Disk quota exceeded"),
    (1, Cause::Killed, r"Killed signal terminated program|(?:^|\s)Killed(?:\s|$)"),
    (1, Cause::Memory, r"virtual memory exhausted|[Cc]annot allocate memory|(?i)\bout of memory\b"),
    (1, Cause::TooManyFiles, r"Too many open files"),
    (1, Cause::TooManyProcesses, r"(?i)fork.*Resource temporarily unavailable|cannot fork"),
    (1, Cause::ReadOnly, r"error: .*Read-only file system"),
    (1, Cause::FileTooLarge, r"File size limit exceeded|File too large"),
    // modpost: an unknown or GPL-only symbol, a missing namespace import, no licence
    (1, Cause::Symbol, r"^(?:ERROR|FATAL): modpost: "),
    (1, Cause::Symbol, r#"^ERROR: "[^"]+" \[[^\]]+\] undefined!"#),
    // gcc, clang, the assembler
    (1, Cause::Source, r"^[^\s:][^:]*:\d+(?::\d+)?: (?:fatal )?[Ee]rror: "),
    // rustc
    (1, Cause::Source, r"^error\[E\d+\]: "),
    (1, Cause::Link, r"undefined reference to |multiple definition of "),
    (1, Cause::Link, r"^(?:\S*/)?(?:[\w.+-]+-)?ld(?:\.\w+)?(?:-[\d.]+)?: \S"),
    // the compiler driver: an unknown option, a missing file
    (1, Cause::Source, r"^(?:\S*/)?[\w.+-]*(?:gcc|g\+\+|clang|cc1|cc)[\w.+-]*: (?:fatal )?error: "),
    (1, Cause::Other, r": error: objtool: "),
    (2, Cause::MissingProgram, r": (?:command )?not found$|^cannot run `.*: program not found: "),
    (2, Cause::MissingProgram, r"^make(?:\[\d+\])?: [\w./+-]+: No such file or directory$"),
    (2, Cause::ReadOnly, r"Read-only file system"),
    (2, Cause::Network, NETWORK),
    (2, Cause::Patch, r"hunks? FAILED|^patch: \*\*\*\*|can't find file to patch"),
    (2, Cause::Makefile, r"^(?:\S+:\d+|make(?:\[\d+\])?): \*\*\* "),
    (2, Cause::Other, r"^\s*(?:ERROR|FATAL|Error)[:!] "),
    (3, Cause::Other, r"(?i)\b(?:error|fatal): "),
    (3, Cause::Denied, r": Permission denied$"),
    (3, Cause::Other, r": No such file or directory$|Segmentation fault"),
    // an error of gcc or clang in another language
    (3, Cause::Source, r"^[^\s:][^:]*:\d+:\d+: \S"),
];

/// A pattern of the messages of curl, wget, git and others that cannot reach a server.
const NETWORK: &str = r"(?i)could not resolve (?:host|proxy)|unable to resolve host|temporary failure (?:in name resolution|resolving)|name or service not known|no address associated with hostname|network is (?:unreachable|down)|no route to host|(?:failed to|could not|couldn't) connect to |connection (?:refused|timed out|reset by peer)|unable to access 'https?:";

/// Returns the explanation of a failed step, whose output is the part `step` of the file `log`.
/// Paths are relative to `build_dir`.
///
/// If no line matches, the last line explains the failure. Returns `None` if there is no such line
/// or if the log cannot be read.
#[must_use]
pub fn read(log: &Path, step: &Range<u64>, build_dir: &Path) -> Option<Diagnosis> {
    search(log, step).map(|(cause, line)| Diagnosis { cause, line: for_display(&line, build_dir) })
}

/// Returns true if the file `log` contains the message of a program that cannot reach a server.
#[must_use]
pub fn shows_network_failure(log: &Path) -> bool {
    static NETWORK_WORDS: OnceLock<Option<Regex>> = OnceLock::new();
    let words = NETWORK_WORDS.get_or_init(|| Regex::new(NETWORK).ok());
    let (Some(words), Ok(file)) = (words, File::open(log)) else { return false };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.by_ref().take(MAX_READ).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        if !text.starts_with("# command: ") && words.is_match(&text) {
            return true;
        }
        line.clear();
    }
    false
}

/// Returns the first line with the lowest rank, and its cause; without such a line, the last one
/// that is not noise. Returns `None` if there is none or if the log cannot be read.
fn search(log: &Path, step: &Range<u64>) -> Option<(Cause, String)> {
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(step.start)).ok()?;
    let mut reader = BufReader::new(file.take(step.end.saturating_sub(step.start)));
    let mut found: Option<(u8, Cause, String)> = None;
    let mut last = None;
    let mut line = Vec::new();
    while reader.by_ref().take(MAX_READ).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        match classify(text) {
            Line::Error(rank, cause) => {
                if found.as_ref().is_none_or(|(best, ..)| rank < *best) {
                    found = Some((rank, cause, text.to_owned()));
                }
                if rank == 1 {
                    break;
                }
            }
            Line::Plain => last = Some(text.to_owned()),
            Line::Noise => {}
        }
        line.clear();
    }
    let found = found.map(|(_, cause, line)| (cause, line));
    found.or_else(|| Some((Cause::Other, last?)))
}

/// The kind of a line in a log.
enum Line {
    /// An error message, with its rank and cause.
    Error(u8, Cause),
    /// A line that never explains a failure.
    Noise,
    /// Any other line.
    Plain,
}

fn classify(line: &str) -> Line {
    static SETS: OnceLock<Option<(RegexSet, RegexSet)>> = OnceLock::new();
    // A test checks that the patterns compile. Even if one did not, a failed build must be
    // reported.
    let sets = SETS.get_or_init(|| {
        let signs = RegexSet::new(SIGNS.map(|(.., pattern)| pattern)).ok()?;
        Some((RegexSet::new(NOISE).ok()?, signs))
    });
    let Some((noise, signs)) = sets else { return Line::Plain };
    if noise.is_match(line) {
        return Line::Noise;
    }
    match signs.matches(line).iter().next().map(|first| SIGNS[first]) {
        Some((rank, cause, _)) => Line::Error(rank, cause),
        None => Line::Plain,
    }
}

/// Returns `line` without the build directory and without the `***` and `Stop.` of make, truncated
/// to [`MAX_SHOWN`] characters.
fn for_display(line: &str, build_dir: &Path) -> String {
    let line = line.trim().replace(&format!("{}/", build_dir.display()), "");
    let line = line.replace(char::is_control, " ");
    let line = match line.split_once(": *** ") {
        Some((make, message)) if make.starts_with("make") => format!("make: {message}"),
        Some((place, message)) => format!("{place}: {message}"),
        None => line,
    };
    let line = line.strip_suffix("Stop.").unwrap_or(&line).trim_end();
    match line.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests;
