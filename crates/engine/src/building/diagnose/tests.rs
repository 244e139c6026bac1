//! Tests of the diagnosis.

use super::*;
use proptest::prelude::*;
use rstest::rstest;

const BUILD_DIR: &str = "/var/lib/dkms/x/1/build";

fn diagnose(log: &[u8]) -> Option<Diagnosis> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), log).unwrap();
    read(file.path(), &(0..u64::MAX))
}

fn shown(log: &[u8]) -> Option<String> {
    diagnose(log).map(|found| found.shown(Path::new(BUILD_DIR)))
}

#[rstest]
#[case::compiler(
    "/var/lib/dkms/x/1/build/x.c:12:5: error: implicit declaration of function 'foo'",
    CauseKind::Source,
    "x.c:12:5: error: implicit declaration of function 'foo'"
)]
#[case::full(
    "/tmp/ccX.s: fatal error: error writing to /tmp/ccX.s: No space left on device",
    CauseKind::DiskFull,
    "/tmp/ccX.s: fatal error: error writing to /tmp/ccX.s: No space left on device"
)]
#[case::plain("the kernel is too new for me", CauseKind::Other, "the kernel is too new for me")]
#[case::coloured("\u{1b}[31mno\u{7}", CauseKind::Other, " [31mno")]
#[case::no_rule(
    "make[3]: *** No rule to make target '/var/lib/dkms/x/1/build/y.o', needed by 'z'.  Stop.",
    CauseKind::Makefile,
    "make: No rule to make target 'y.o', needed by 'z'."
)]
#[case::makefile(
    "/var/lib/dkms/x/1/build/Makefile:12: *** this kernel is too old.  Stop.",
    CauseKind::Makefile,
    "Makefile:12: this kernel is too old."
)]
fn finds_the_cause(#[case] line: &str, #[case] kind: CauseKind, #[case] shown: &str) {
    let log = format!(
        "DKMS (dkms-3.4.3) make.log for x/1 for kernel 7 (x86_64)\n\n# command: make CC='cc: error: '\n\
         warning: the compiler differs from the one used to build the kernel\n\
         /x.c:1:2: warning: unused variable 'error'\nIn file included from y.h:1:\n\
         {line}\n\
         cc1: all warnings being treated as errors\n\
         make[2]: *** [scripts/Makefile.build:289: x.o] Error 1\nmake: *** [Makefile:4: all] Fehler 2\n"
    );
    let found = diagnose(log.as_bytes()).unwrap();
    assert_eq!((found.kind(), found.shown(Path::new(BUILD_DIR)).as_str()), (kind, shown));
    assert_eq!(log[usize::try_from(found.line.at).unwrap()..].lines().next(), Some(line));
}

#[test]
fn prefers_a_compiler_error_to_an_earlier_line() {
    let log = b"/bin/sh: 1: pahole: not found\nx.c:1:1: error: first\nx.c:2:1: error: second\n";
    assert_eq!(shown(log).unwrap(), "x.c:1:1: error: first");
}

#[rstest]
#[case::empty("")]
#[case::success("  CC [M]  x.o\n  LD [M]  x.ko\n\n# exit code: 0\n")]
#[case::only_noise("x.c:1: warning: old\nmake[1]: *** [Makefile:1: all] Error 2\n")]
fn finds_nothing_without_an_error(#[case] log: &str) {
    assert_eq!(shown(log.as_bytes()), None);
}

#[test]
fn considers_only_the_given_step() {
    let (first, second) = ("x.c:1:1: error: tolerated\n", "the answer is no\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{first}{second}x.c:1:1: error: later\n")).unwrap();
    let start = u64::try_from(first.len()).unwrap();
    let end = start + u64::try_from(second.len()).unwrap();
    let found = read(file.path(), &(start..end)).unwrap();
    assert_eq!((found.kind(), found.line.text.as_str()), (CauseKind::Other, "the answer is no"));
    assert_eq!(found.line.at, start);
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
        assert_eq!(network_failure(file.path()).is_some(), want, "{line}");
    }
}

#[test]
fn truncates_long_lines() {
    let line = shown(format!("a.c:1:1: error: {}\n", "ä".repeat(20_000)).as_bytes()).unwrap();
    assert_eq!(line.chars().count(), MAX_SHOWN + 1);
}

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = shown(&bytes);
    }
}
