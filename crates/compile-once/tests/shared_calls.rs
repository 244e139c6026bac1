//! compile-once runs a shared compiler call once, and passes every other call on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use assert_cmd::Command;
use rstest::rstest;
use testroot::TestRoot;

/// Whether a compiler knows an option, as kbuild asks for it.
const OPTION: [&str; 8] = ["-O2", "-c", "-x", "c", "/dev/null", "-o", "object", "-g"];

/// Kbuild's own file, with what it depends on.
const COMMON: [&str; 5] =
    ["-Wp,-MMD,common.d", "-c", "-o", "common.o", "/h/scripts/module-common.c"];

/// Compiles what it is asked to: writes its arguments, and says something.
const COMPILES: &str = "for word; do\n\
    case $last in -o) echo \"$*\" > \"$word\";; esac\n\
    case $word in -Wp,-MMD,*) echo 'common.o: x' > \"${word#-Wp,-MMD,}\";; esac\n\
    last=$word\ndone\necho told; echo warned >&2";

/// A root with a gcc and a copy of compile-once that wraps it.
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
        // By a child: were the file open here, one that another test forks would keep it busy.
        let ours = assert_cmd::cargo::cargo_bin!("compile-once");
        Command::new("cp").arg(ours).arg(root.at("once/gcc")).assert().success();
        Self { root }
    }

    /// The compiler's name, called from the directory of a module.
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

#[rstest]
#[case::option(&OPTION, &["object"])]
#[case::common(&COMMON, &["common.o", "common.d"])]
fn the_second_answer_is_the_first_one(#[case] asked: &[&str], #[case] files: &[&str]) {
    let wrapped = WrappedGcc::with(COMPILES);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let said = wrapped.gcc(asked).assert().success().stdout("told\n").stderr("warned\n");
        drop(said);
        let written = |file: &&str| wrapped.root.read(format!("module/{file}"));
        answers.push(files.iter().map(written).collect::<Vec<_>>());
        for file in files {
            wrapped.root.remove(format!("module/{file}"));
        }
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(wrapped.calls(), 1);
    assert_eq!(wrapped.root.listing("module"), "", "more was written than was asked for");
}

#[rstest]
#[case::module(&["-c", "-o", "a.o", "a.c"])]
#[case::version(&["--version"])]
fn what_may_differ_is_asked_each_time(#[case] asked: &[&str]) {
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
fn a_failure_is_asked_again(#[case] fails: &str, #[case] code: i32) {
    let wrapped = WrappedGcc::with(fails);
    wrapped.gcc(&OPTION).assert().code(code);
    wrapped.root.program("gcc", COMPILES);
    wrapped.gcc(&OPTION).assert().success();
    assert!(wrapped.root.exists("module/object"));
    assert_eq!(wrapped.calls(), 2);
}

#[test]
fn without_a_place_for_answers_the_compiler_is_started() {
    let wrapped = WrappedGcc::with(COMPILES);
    for _ in 0..2 {
        wrapped.gcc(&OPTION).env_remove("ALPM_DKMS_ANSWERS").assert().success();
        wrapped.gcc(&OPTION).env("ALPM_DKMS_ANSWERS", "/no/such/place").assert().success();
    }
    assert_eq!(wrapped.calls(), 4);
}

#[test]
fn what_cannot_be_written_is_for_the_compiler_to_say() {
    let wrapped = WrappedGcc::with(COMPILES);
    wrapped.gcc(&OPTION).assert().success();
    let elsewhere = OPTION.map(|word| if word == "object" { "no/object" } else { word });
    let said = wrapped.gcc(&elsewhere).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("no/object"), "{said:?}");
    assert_eq!(wrapped.calls(), 2);
}

/// Programs such as ccache can be called by the compiler's name and then look for the next one.
#[test]
fn a_program_between_us_and_the_compiler_does_not_find_us_again() {
    let wrapped = WrappedGcc::with("[ \"$(command -v gcc)\" = \"$0\" ] && echo found");
    wrapped.gcc(&["--version"]).assert().success().stdout("found\n");
}

#[test]
fn no_compiler_is_no_such_program() {
    let wrapped = WrappedGcc::with("");
    wrapped.gcc(&[]).env("PATH", wrapped.root.at("once")).assert().code(127);
}

#[test]
fn many_may_ask_the_same_at_once() {
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
    assert_eq!(answers, 1, "what was kept twice is left");
}
