//! Tests of the diagnosis.

use super::*;
use proptest::prelude::*;
use rstest::rstest;

fn diagnose(log: &[u8]) -> Option<Diagnosis> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), log).unwrap();
    read(file.path(), &(0..u64::MAX), Path::new("/var/lib/dkms/x/1/build"))
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
#[case::processes(
    "bash: fork: retry: Resource temporarily unavailable",
    Cause::TooManyProcesses,
    "bash: fork: retry: Resource temporarily unavailable"
)]
#[case::confined_processes(
    "alpm-dkms: cannot confine /usr/bin/bash: Resource temporarily unavailable (os error 11)",
    Cause::TooManyProcesses,
    "alpm-dkms: cannot confine /usr/bin/bash: Resource temporarily unavailable (os error 11)"
)]
#[case::namespaces(
    "alpm-dkms: cannot confine ./pre.sh: No space left on device (os error 28)",
    Cause::TooManyProcesses,
    "alpm-dkms: cannot confine ./pre.sh: No space left on device (os error 28)"
)]
#[case::not_confined(
    "alpm-dkms: cannot confine /usr/bin/bash: /tmp: Not a directory (os error 20)",
    Cause::NotConfined,
    "alpm-dkms: cannot confine /usr/bin/bash: /tmp: Not a directory (os error 20)"
)]
#[case::dash_processes("sh: 1: Cannot fork", Cause::TooManyProcesses, "sh: 1: Cannot fork")]
#[case::file_size(
    "ld: final link failed: File too large",
    Cause::FileTooLarge,
    "ld: final link failed: File too large"
)]
#[case::read_only(
    "mkdir: cannot create directory '/opt/x': Read-only file system",
    Cause::ReadOnly,
    "mkdir: cannot create directory '/opt/x': Read-only file system"
)]
#[case::read_only_compiler(
    "x.c:1:1: fatal error: opening dependency file /srv/x.d: Read-only file system",
    Cause::ReadOnly,
    "x.c:1:1: fatal error: opening dependency file /srv/x.d: Read-only file system"
)]
#[case::denied(
    "/bin/sh: 1: ./configure: Permission denied",
    Cause::Denied,
    "/bin/sh: 1: ./configure: Permission denied"
)]
#[case::curl(
    "curl: (6) Could not resolve host: example.org",
    Cause::Network,
    "curl: (6) Could not resolve host: example.org"
)]
#[case::git(
    "fatal: unable to access 'https://example.org/x.git/': Could not resolve host: example.org",
    Cause::Network,
    "fatal: unable to access 'https://example.org/x.git/': Could not resolve host: example.org"
)]
#[case::wget(
    "wget: unable to resolve host address 'example.org'",
    Cause::Network,
    "wget: unable to resolve host address 'example.org'"
)]
#[case::german("x.c:2:2: Fehler: #error zu neu", Cause::Source, "x.c:2:2: Fehler: #error zu neu")]
#[case::japanese("x.c:2:2: エラー: 未宣言", Cause::Source, "x.c:2:2: エラー: 未宣言")]
#[case::plain("the kernel is too new for me", Cause::Other, "the kernel is too new for me")]
#[case::coloured("\u{1b}[31mno\u{7}", Cause::Other, " [31mno")]
#[case::dash("/bin/sh: 1: flex: not found", Cause::MissingProgram, "/bin/sh: 1: flex: not found")]
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
         make[2]: *** [scripts/Makefile.build:289: x.o] Error 1\nmake: *** [Makefile:4: all] Fehler 2\n"
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
fn considers_only_the_given_step() {
    let (first, second) = ("x.c:1:1: error: tolerated\n", "the answer is no\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{first}{second}x.c:1:1: error: later\n")).unwrap();
    let start = u64::try_from(first.len()).unwrap();
    let end = start + u64::try_from(second.len()).unwrap();
    let found = read(file.path(), &(start..end), Path::new("/x")).unwrap();
    assert_eq!((found.cause, found.line.as_str()), (Cause::Other, "the answer is no"));
}

#[test]
fn network_failures_show_anywhere_in_a_log() {
    for (line, want) in [
        ("ssh: connect to host x port 22: Connection timed out", true),
        ("Temporary failure resolving 'deb.example.org'", true),
        ("# command: sh -c 'echo Could not resolve host'", false),
        ("x.c:1:1: error: network_is_down undeclared", false),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("one\n{line}\nlast\n")).unwrap();
        assert_eq!(shows_network_failure(file.path()), want, "{line}");
    }
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
