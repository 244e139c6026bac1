//! Tests that compile-once runs a shared compiler call once, and every other call each time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use assert_cmd::Command;
use rstest::rstest;
use testroot::TestRoot;

/// The arguments of kbuild's probe for an option.
const OPTION: [&str; 8] = ["-O2", "-c", "-x", "c", "/dev/null", "-o", "object", "-g"];

/// A compiler script that writes its arguments to the object and prints text.
const COMPILES: &str = "for word; do\n\
    case $last in -o) echo \"$*\" > \"$word\";; esac\n\
    last=$word\ndone\necho told; echo warned >&2";

/// A root with a gcc script and a copy of compile-once that wraps it.
struct WrappedGcc {
    root: TestRoot,
}

impl WrappedGcc {
    fn with(gcc: &str) -> Self {
        let root = TestRoot::new();
        root.program("gcc", gcc);
        root.dir("once");
        root.dir("answers");
        root.dir("module");
        // Copied by a child process. If this process opened the file for writing, a process that
        // another test forks could inherit the descriptor, and the file could not be executed.
        let ours = assert_cmd::cargo::cargo_bin!("compile-once");
        Command::new("cp").arg(ours).arg(root.at("once/gcc")).assert().success();
        Self { root }
    }

    /// Returns a command that runs the wrapped compiler in a module's directory.
    fn gcc(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.root.at("once/gcc"));
        let path =
            format!("{}:{}", self.root.at("once").display(), self.root.search_path().display());
        command
            .env("PATH", path)
            .env("ALPM_DKMS_ANSWERS", self.root.at("answers"))
            .current_dir(self.root.at("module"))
            .args(arguments);
        command
    }

    fn calls(&self) -> usize {
        self.root.calls("gcc").len()
    }
}

#[test]
fn repeats_the_first_result() {
    let wrapped = WrappedGcc::with(COMPILES);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let said = wrapped.gcc(&OPTION).assert().success().stdout("told\n").stderr("warned\n");
        drop(said);
        answers.push(wrapped.root.read("module/object"));
        wrapped.root.remove("module/object");
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(wrapped.calls(), 1);
    assert_eq!(wrapped.root.listing("module"), "", "unexpected files");
}

#[rstest]
#[case::module(&["-c", "-o", "a.o", "a.c"])]
#[case::version(&["--version"])]
fn runs_other_calls_each_time(#[case] asked: &[&str]) {
    let wrapped = WrappedGcc::with(&format!("cat; {COMPILES}; exit 3"));
    for count in 1..=2 {
        let said = wrapped.gcc(asked).write_stdin("read ").assert();
        said.code(3).stdout("read told\n").stderr("warned\n");
        assert_eq!(wrapped.calls(), count);
    }
    assert_eq!(wrapped.root.listing("answers"), "");
}

#[rstest]
#[case::fails("echo no such option >&2; exit 1", 1)]
#[case::killed("kill -9 $$", 128 + 9)]
fn runs_failed_calls_again(#[case] fails: &str, #[case] code: i32) {
    let wrapped = WrappedGcc::with(fails);
    wrapped.gcc(&OPTION).assert().code(code);
    wrapped.root.program("gcc", COMPILES);
    wrapped.gcc(&OPTION).assert().success();
    assert!(wrapped.root.exists("module/object"));
    assert_eq!(wrapped.calls(), 2);
}

#[test]
fn always_runs_the_compiler_without_a_results_directory() {
    let wrapped = WrappedGcc::with(COMPILES);
    for _ in 0..2 {
        wrapped.gcc(&OPTION).env_remove("ALPM_DKMS_ANSWERS").assert().success();
        wrapped.gcc(&OPTION).env("ALPM_DKMS_ANSWERS", "/no/such/place").assert().success();
    }
    assert_eq!(wrapped.calls(), 4);
}

#[test]
fn the_compiler_reports_write_errors() {
    let wrapped = WrappedGcc::with(COMPILES);
    wrapped.gcc(&OPTION).assert().success();
    let elsewhere = OPTION.map(|word| if word == "object" { "no/object" } else { word });
    let said = wrapped.gcc(&elsewhere).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("no/object"), "{said:?}");
    assert_eq!(wrapped.calls(), 2);
}

/// Programs such as ccache, called by the compiler's name, search PATH for the next program with
/// that name.
#[test]
fn programs_such_as_ccache_find_the_next_compiler() {
    let wrapped = WrappedGcc::with("[ \"$(command -v gcc)\" = \"$0\" ] && echo found");
    wrapped.gcc(&["--version"]).assert().success().stdout("found\n");
}

#[test]
fn exits_with_127_without_a_compiler() {
    let wrapped = WrappedGcc::with("");
    wrapped.gcc(&[]).env("PATH", wrapped.root.at("once")).assert().code(127);
}

#[test]
fn stores_one_result_for_concurrent_calls() {
    let wrapped = WrappedGcc::with(COMPILES);
    std::thread::scope(|scope| {
        for job in 0..8 {
            let wrapped = &wrapped;
            scope.spawn(move || {
                let object = format!("object-{job}");
                let asked = OPTION.map(|word| if word == "object" { &object } else { word });
                wrapped.gcc(&asked).assert().success();
                assert!(!wrapped.root.read(format!("module/{object}")).is_empty());
            });
        }
    });
    let answers = fs::read_dir(wrapped.root.at("answers")).unwrap().count();
    assert_eq!(answers, 1, "duplicate results remain");
}
