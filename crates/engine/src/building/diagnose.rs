//! Finds the line in a build log that explains why the build failed.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::OnceLock;

use regex::RegexSet;

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

impl Diagnosis {
    /// Returns true if the disk is full or a quota is exceeded. Other builds would then fail too.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.cause == Cause::DiskFull
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

/// Patterns of lines that never explain a failure: warnings, make's reports of failed recipes, and
/// logged command lines.
const NOISE: [&str; 4] = [
    r"(?i)\bwarning: ",
    r"\*\*\* \[.*\] Error \d+",
    r"\*\*\* Waiting for unfinished jobs",
    r"^# command: ",
];

/// Patterns of error messages, each with its rank and its cause.
///
/// Specific messages have low ranks: the first line with the lowest rank explains the failure. If
/// several patterns match a line, the first pattern determines the rank and the cause.
const SIGNS: [(u8, Cause, &str); 19] = [
    (1, Cause::DiskFull, r"No space left on device|Disk quota exceeded"),
    (1, Cause::Killed, r"Killed signal terminated program|(?:^|\s)Killed(?:\s|$)"),
    (1, Cause::Memory, r"virtual memory exhausted|[Cc]annot allocate memory|(?i)\bout of memory\b"),
    (1, Cause::TooManyFiles, r"Too many open files"),
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
    (2, Cause::Patch, r"hunks? FAILED|^patch: \*\*\*\*|can't find file to patch"),
    (2, Cause::Makefile, r"^(?:\S+:\d+|make(?:\[\d+\])?): \*\*\* "),
    (2, Cause::Other, r"^\s*(?:ERROR|FATAL|Error)[:!] "),
    (3, Cause::Other, r"(?i)\b(?:error|fatal): "),
    (3, Cause::Other, r": No such file or directory$|: Permission denied$|Segmentation fault"),
];

/// Returns the explanation of a failed build, found in the file `log`, with paths relative to
/// `build_dir`. Returns `None` if no line matches or if the log cannot be read.
#[must_use]
pub fn read(log: &Path, build_dir: &Path) -> Option<Diagnosis> {
    search(log).map(|(cause, line)| Diagnosis { cause, line: for_display(&line, build_dir) })
}

/// Returns the first line with the lowest rank, and its cause. Returns `None` if no line matches or
/// if the log cannot be read.
fn search(log: &Path) -> Option<(Cause, String)> {
    let mut reader = BufReader::new(File::open(log).ok()?);
    let mut found: Option<(u8, Cause, String)> = None;
    let mut line = Vec::new();
    while reader.by_ref().take(MAX_READ).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if let Some((rank, cause)) = classify(text)
            && found.as_ref().is_none_or(|(best, ..)| rank < *best)
        {
            found = Some((rank, cause, text.to_owned()));
            if rank == 1 {
                break;
            }
        }
        line.clear();
    }
    found.map(|(_, cause, line)| (cause, line))
}

/// Returns the rank and cause of a line; `None` if the line reports no failure.
fn classify(line: &str) -> Option<(u8, Cause)> {
    static SETS: OnceLock<Option<(RegexSet, RegexSet)>> = OnceLock::new();
    // A test checks that the patterns compile. Even if one did not, a failed build must be
    // reported.
    let sets = SETS.get_or_init(|| {
        let signs = RegexSet::new(SIGNS.map(|(.., pattern)| pattern)).ok()?;
        Some((RegexSet::new(NOISE).ok()?, signs))
    });
    let (noise, signs) = sets.as_ref()?;
    let first = signs.matches(line).iter().next()?;
    let (rank, cause, _) = SIGNS[first];
    (!noise.is_match(line)).then_some((rank, cause))
}

/// Returns `line` without the build directory and without the `***` and `Stop.` of make, truncated
/// to [`MAX_SHOWN`] characters.
fn for_display(line: &str, build_dir: &Path) -> String {
    let line = line.trim().replace(&format!("{}/", build_dir.display()), "");
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn diagnose(log: &[u8]) -> Option<Diagnosis> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), log).unwrap();
        read(file.path(), Path::new("/var/lib/dkms/x/1/build"))
    }

    #[test]
    fn all_patterns_compile() {
        RegexSet::new(SIGNS.map(|(.., pattern)| pattern)).unwrap();
        RegexSet::new(NOISE).unwrap();
    }

    #[rstest]
    #[case::compiler(
        "/var/lib/dkms/x/1/build/x.c:12:5: error: implicit declaration of function 'foo'",
        Cause::Source,
        "x.c:12:5: error: implicit declaration of function 'foo'"
    )]
    #[case::header(
        "/var/lib/dkms/x/1/build/sub/x.c:3:10: fatal error: linux/gone.h: No such file or directory",
        Cause::Source,
        "sub/x.c:3:10: fatal error: linux/gone.h: No such file or directory"
    )]
    #[case::assembler(
        "x.S:4: Error: no such instruction: `foo'",
        Cause::Source,
        "x.S:4: Error: no such instruction: `foo'"
    )]
    #[case::driver(
        "x86_64-linux-gnu-gcc-16: error: unrecognized command-line option '-mfoo'",
        Cause::Source,
        "x86_64-linux-gnu-gcc-16: error: unrecognized command-line option '-mfoo'"
    )]
    #[case::linker(
        "ld: cannot find y.o: No such file or directory",
        Cause::Link,
        "ld: cannot find y.o: No such file or directory"
    )]
    #[case::lld(
        "ld.lld: error: undefined symbol: foo",
        Cause::Link,
        "ld.lld: error: undefined symbol: foo"
    )]
    #[case::undefined(
        "ERROR: modpost: \"gone\" [/var/lib/dkms/x/1/build/x.ko] undefined!",
        Cause::Symbol,
        "ERROR: modpost: \"gone\" [x.ko] undefined!"
    )]
    #[case::gpl_only(
        "ERROR: modpost: GPL-incompatible module x.ko uses GPL-only symbol 'foo'",
        Cause::Symbol,
        "ERROR: modpost: GPL-incompatible module x.ko uses GPL-only symbol 'foo'"
    )]
    #[case::old_modpost(
        "ERROR: \"gone\" [x.ko] undefined!",
        Cause::Symbol,
        "ERROR: \"gone\" [x.ko] undefined!"
    )]
    #[case::full(
        "/tmp/ccX.s: fatal error: error writing to /tmp/ccX.s: No space left on device",
        Cause::DiskFull,
        "/tmp/ccX.s: fatal error: error writing to /tmp/ccX.s: No space left on device"
    )]
    #[case::memory(
        "gcc: fatal error: Killed signal terminated program cc1",
        Cause::Killed,
        "gcc: fatal error: Killed signal terminated program cc1"
    )]
    #[case::exhausted(
        "cc1: out of memory allocating 65536 bytes after a total of 1048576 bytes",
        Cause::Memory,
        "cc1: out of memory allocating 65536 bytes after a total of 1048576 bytes"
    )]
    #[case::no_fork(
        "make[1]: vfork: Cannot allocate memory",
        Cause::Memory,
        "make[1]: vfork: Cannot allocate memory"
    )]
    #[case::killed(
        "/bin/sh: line 1:  4711 Killed                  gcc -c x.c",
        Cause::Killed,
        "/bin/sh: line 1:  4711 Killed                  gcc -c x.c"
    )]
    #[case::files(
        "make[2]: /bin/sh: Too many open files",
        Cause::TooManyFiles,
        "make[2]: /bin/sh: Too many open files"
    )]
    #[case::dash(
        "/bin/sh: 1: flex: not found",
        Cause::MissingProgram,
        "/bin/sh: 1: flex: not found"
    )]
    #[case::bash(
        "bash: line 1: autoconf: command not found",
        Cause::MissingProgram,
        "bash: line 1: autoconf: command not found"
    )]
    #[case::make(
        "make[1]: gcc-9: No such file or directory",
        Cause::MissingProgram,
        "make[1]: gcc-9: No such file or directory"
    )]
    #[case::no_rule(
        "make[3]: *** No rule to make target '/var/lib/dkms/x/1/build/y.o', needed by 'z'.  Stop.",
        Cause::Makefile,
        "make: No rule to make target 'y.o', needed by 'z'."
    )]
    #[case::makefile(
        "/var/lib/dkms/x/1/build/Makefile:12: *** this kernel is too old.  Stop.",
        Cause::Makefile,
        "Makefile:12: this kernel is too old."
    )]
    #[case::patch(
        "1 out of 2 hunks FAILED -- saving rejects to file x.c.rej",
        Cause::Patch,
        "1 out of 2 hunks FAILED -- saving rejects to file x.c.rej"
    )]
    #[case::script(
        "configure: error: no kernel found",
        Cause::Other,
        "configure: error: no kernel found"
    )]
    #[case::copy(
        "cp: cannot stat 'x': No such file or directory",
        Cause::Other,
        "cp: cannot stat 'x': No such file or directory"
    )]
    fn finds_the_cause(#[case] line: &str, #[case] cause: Cause, #[case] shown: &str) {
        let log = format!(
            "DKMS (dkms-3.4.3) make.log for x/1 for kernel 7 (x86_64)\n\n# command: make CC='cc: error: '\n\
             warning: the compiler differs from the one used to build the kernel\n\
             /x.c:1:2: warning: unused variable 'error'\nIn file included from y.h:1:\n\
             {line}\n\
             cc1: all warnings being treated as errors\n\
             make[2]: *** [scripts/Makefile.build:289: x.o] Error 1\nmake: *** [Makefile:4: all] Error 2\n"
        );
        let found = diagnose(log.as_bytes()).unwrap();
        assert_eq!((found.cause, found.to_string().as_str()), (cause, shown));
    }

    #[test]
    fn prefers_a_compiler_error_to_an_earlier_line() {
        let log = b"/bin/sh: 1: pahole: not found\nx.c:1:1: error: first\nx.c:2:1: error: second\n";
        assert_eq!(diagnose(log).unwrap().line, "x.c:1:1: error: first");
    }

    #[rstest]
    #[case::empty("")]
    #[case::success("  CC [M]  x.o\n  LD [M]  x.ko\n\n# exit code: 0\n")]
    #[case::only_noise("x.c:1: warning: old\nmake[1]: *** [Makefile:1: all] Error 2\n")]
    fn finds_nothing_without_an_error(#[case] log: &str) {
        assert_eq!(diagnose(log.as_bytes()), None);
    }

    #[test]
    fn truncates_long_lines() {
        let line =
            diagnose(format!("a.c:1:1: error: {}\n", "ä".repeat(20_000)).as_bytes()).unwrap().line;
        assert_eq!(line.chars().count(), MAX_SHOWN + 1);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = diagnose(&bytes);
        }
    }
}
