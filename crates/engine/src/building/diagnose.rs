//! Finds the line in a build's log that says why the build failed.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::OnceLock;

use regex::RegexSet;

/// The kind of thing that went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The disk is full, or a quota is.
    DiskFull,
    /// The memory was not enough.
    Memory,
    /// The compiler was killed: mostly because the memory was not enough.
    Killed,
    /// More open files than a process may have.
    TooManyFiles,
    /// The compiler does not take the source.
    Source,
    /// The linker does not take the objects.
    Link,
    /// The kernel does not export a symbol, or not to this module.
    Symbol,
    /// A program is not installed.
    MissingProgram,
    /// A patch does not fit.
    Patch,
    /// The Makefile itself gives up.
    Makefile,
    /// Anything else that calls itself an error.
    Other,
}

/// What a log says about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// What kind of failure it is.
    pub cause: Cause,
    /// The line that says so, with paths below the build directory shortened.
    pub line: String,
}

impl Diagnosis {
    /// Returns true if there was no room left: the next build will fail in the same way.
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

/// Longer lines are cut when shown.
const LONGEST_SHOWN: usize = 300;

/// So much of a line is looked at; a linker's command line can be longer.
const LONGEST_READ: u64 = 16 * 1024;

/// What is never the cause: warnings, and make's reports that something above failed.
const NOISE: [&str; 4] = [
    r"(?i)\bwarning: ",
    r"\*\*\* \[.*\] Error \d+",
    r"\*\*\* Waiting for unfinished jobs",
    r"^# command: ",
];

/// Patterns of failures. A low rank marks a specific line: the first line of the lowest
/// rank is taken. Of several patterns that match one line, the first names the cause.
const SIGNS: [(u8, Cause, &str); 19] = [
    (1, Cause::DiskFull, r"No space left on device|Disk quota exceeded"),
    (1, Cause::Killed, r"Killed signal terminated program|(?:^|\s)Killed(?:\s|$)"),
    (1, Cause::Memory, r"virtual memory exhausted|[Cc]annot allocate memory|(?i)\bout of memory\b"),
    (1, Cause::TooManyFiles, r"Too many open files"),
    // modpost: an unknown symbol, one for GPL modules only, one of a namespace, no licence
    (1, Cause::Symbol, r"^(?:ERROR|FATAL): modpost: "),
    (1, Cause::Symbol, r#"^ERROR: "[^"]+" \[[^\]]+\] undefined!"#),
    // gcc, clang, the assembler
    (1, Cause::Source, r"^[^\s:][^:]*:\d+(?::\d+)?: (?:fatal )?[Ee]rror: "),
    // rustc
    (1, Cause::Source, r"^error\[E\d+\]: "),
    (1, Cause::Link, r"undefined reference to |multiple definition of "),
    (1, Cause::Link, r"^(?:\S*/)?(?:[\w.+-]+-)?ld(?:\.\w+)?(?:-[\d.]+)?: \S"),
    // the compiler's driver: an option or a file that it does not know
    (1, Cause::Source, r"^(?:\S*/)?[\w.+-]*(?:gcc|g\+\+|clang|cc1|cc)[\w.+-]*: (?:fatal )?error: "),
    (1, Cause::Other, r": error: objtool: "),
    (2, Cause::MissingProgram, r": (?:command )?not found$|^cannot run `.*: there is no program "),
    (2, Cause::MissingProgram, r"^make(?:\[\d+\])?: [\w./+-]+: No such file or directory$"),
    (2, Cause::Patch, r"hunks? FAILED|^patch: \*\*\*\*|can't find file to patch"),
    (2, Cause::Makefile, r"^(?:\S+:\d+|make(?:\[\d+\])?): \*\*\* "),
    (2, Cause::Other, r"^\s*(?:ERROR|FATAL|Error)[:!] "),
    (3, Cause::Other, r"(?i)\b(?:error|fatal): "),
    (3, Cause::Other, r": No such file or directory$|: Permission denied$|Segmentation fault"),
];

/// Looks for the cause of a failed build in its log `make.log`. `build_dir` is what paths are
/// shown relative to. `None` if no line fits, or if there is no log.
#[must_use]
pub fn read(log: &Path, build_dir: &Path) -> Option<Diagnosis> {
    search(log).map(|(cause, line)| Diagnosis { cause, line: shown(&line, build_dir) })
}

/// Returns the first line of the lowest rank.
fn search(log: &Path) -> Option<(Cause, String)> {
    let mut reader = BufReader::new(File::open(log).ok()?);
    let mut found: Option<(u8, Cause, String)> = None;
    let mut line = Vec::new();
    while reader.by_ref().take(LONGEST_READ).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if let Some((rank, cause)) = sign(text)
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

/// What a line is a sign of.
fn sign(line: &str) -> Option<(u8, Cause)> {
    static SETS: OnceLock<Option<(RegexSet, RegexSet)>> = OnceLock::new();
    // That these can be compiled is tested; a build that fails is not the time to panic.
    let sets = SETS.get_or_init(|| {
        let signs = RegexSet::new(SIGNS.map(|(.., pattern)| pattern)).ok()?;
        Some((RegexSet::new(NOISE).ok()?, signs))
    });
    let (noise, signs) = sets.as_ref()?;
    let first = signs.matches(line).iter().next()?;
    let (rank, cause, _) = SIGNS[first];
    (!noise.is_match(line)).then_some((rank, cause))
}

/// The line as a person wants it: without the build directory, without make's own decoration.
fn shown(line: &str, build_dir: &Path) -> String {
    let line = line.trim().replace(&format!("{}/", build_dir.display()), "");
    let line = match line.split_once(": *** ") {
        Some((make, message)) if make.starts_with("make") => format!("make: {message}"),
        Some((place, message)) => format!("{place}: {message}"),
        None => line,
    };
    let line = line.strip_suffix("Stop.").unwrap_or(&line).trim_end();
    match line.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn of(log: &[u8]) -> Option<Diagnosis> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), log).unwrap();
        read(file.path(), Path::new("/var/lib/dkms/x/1/build"))
    }

    #[test]
    fn all_patterns_can_be_compiled() {
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
    #[case::made(
        "make[1]: gcc-9: No such file or directory",
        Cause::MissingProgram,
        "make[1]: gcc-9: No such file or directory"
    )]
    #[case::no_rule(
        "make[3]: *** No rule to make target '/var/lib/dkms/x/1/build/y.o', needed by 'z'.  Stop.",
        Cause::Makefile,
        "make: No rule to make target 'y.o', needed by 'z'."
    )]
    #[case::said_by_the_makefile(
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
    fn finds(#[case] line: &str, #[case] cause: Cause, #[case] shown: &str) {
        let log = format!(
            "DKMS (dkms-3.4.3) make.log for x/1 for kernel 7 (x86_64)\n\n# command: make CC='cc: error: '\n\
             warning: the compiler differs from the one used to build the kernel\n\
             /x.c:1:2: warning: unused variable 'error'\nIn file included from y.h:1:\n\
             {line}\n\
             cc1: all warnings being treated as errors\n\
             make[2]: *** [scripts/Makefile.build:289: x.o] Error 1\nmake: *** [Makefile:4: all] Error 2\n"
        );
        let found = of(log.as_bytes()).unwrap();
        assert_eq!((found.cause, found.to_string().as_str()), (cause, shown));
    }

    #[test]
    fn prefers_the_compiler_to_what_stands_before_it() {
        let log = b"/bin/sh: 1: pahole: not found\nx.c:1:1: error: first\nx.c:2:1: error: second\n";
        assert_eq!(of(log).unwrap().line, "x.c:1:1: error: first");
    }

    #[rstest]
    #[case::empty("")]
    #[case::success("  CC [M]  x.o\n  LD [M]  x.ko\n\n# exit code: 0\n")]
    #[case::only_noise("x.c:1: warning: old\nmake[1]: *** [Makefile:1: all] Error 2\n")]
    fn finds_nothing_where_nothing_is_said(#[case] log: &str) {
        assert_eq!(of(log.as_bytes()), None);
    }

    #[test]
    fn cuts_long_lines() {
        let line = of(format!("a.c:1:1: error: {}\n", "ä".repeat(20_000)).as_bytes()).unwrap().line;
        assert_eq!(line.chars().count(), LONGEST_SHOWN + 1);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = of(&bytes);
        }
    }
}
