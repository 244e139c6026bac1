//! Tests of the links `make` and `uname` with the real programs.

#![expect(clippy::unwrap_used, reason = "a test fails if its directory cannot be created")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use assert_cmd::Command;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rstest::rstest;

/// A directory with the links, and a jobserver with two tokens.
struct Builds {
    dir: tempfile::TempDir,
    /// The open FIFO. The tokens would be lost if no process had it open.
    jobserver: fs::File,
}

impl Builds {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        for name in ["make", "uname"] {
            let this = env!("CARGO_BIN_EXE_dkms-confine");
            symlink(this, dir.path().join("bin").join(name)).unwrap();
        }
        let fifo = dir.path().join("jobserver");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let jobserver = fs::File::options().read(true).write(true).open(&fifo).unwrap();
        std::io::Write::write_all(&mut &jobserver, b"++").unwrap();
        Self { dir, jobserver }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn makefile(&self, text: &str) {
        fs::write(self.at("Makefile"), text).unwrap();
    }

    /// Returns a shell that runs `line` in the directory, with the links first in PATH.
    fn shell(&self, line: &str) -> Command {
        let mut shell = self.call("bash");
        shell.args(["-c", line]);
        shell.env("PATH", format!("{}:/usr/bin:/bin", self.at("bin").display()));
        shell
    }

    /// Returns a call of `program` in the directory, without the variables that are set if make
    /// runs this test.
    fn call(&self, program: impl AsRef<OsStr>) -> Command {
        let mut call = Command::new(program);
        call.current_dir(self.dir.path());
        for name in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKE_TERMERR", "MAKE_TERMOUT"] {
            call.env_remove(name);
        }
        call
    }

    /// Runs `line`, which must succeed, with the jobserver. Returns the output.
    fn output(&self, line: &str) -> String {
        let mut shell = self.shell(line);
        let done = shell.env("ALPM_DKMS_JOBSERVER", self.at("jobserver")).assert().success();
        String::from_utf8(done.get_output().stdout.clone()).unwrap()
    }

    /// Returns the number of tokens in the jobserver.
    fn tokens(&self) -> usize {
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&self.jobserver, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
        std::io::Read::read(&mut &self.jobserver, &mut [0; 9]).unwrap()
    }
}

/// A recipe that records how many recipes run in parallel. The first recipe waits for a second
/// one, at most 30 seconds, so that a busy machine does not change the result.
const RECIPE: &str = "touch run.$@; met=met.$(words $(filter a b c d e f,$@)); tries=0; \
                      until test -e $$met || test $$(ls run.* | wc -l) -ge 2 || test $$tries -ge 300; \
                      do sleep 0.1; tries=$$((tries + 1)); done; \
                      touch $$met; ls run.* | wc -l >> counts; sleep 0.1; rm run.$@";

/// Covers `-j` in confs and in recipes, and recipes that run `make` instead of `$(MAKE)`.
#[rstest]
#[case::plain("make", "+$(MAKE)")]
#[case::more_jobs("make -j9", "+$(MAKE) -j9")]
#[case::literal("make", "make -j9")]
#[case::called_through_env("make --jobs", "env $(MAKE)")]
#[case::flags("MAKEFLAGS=-j9 make", "make")]
fn make_runs_one_job_per_token(#[case] line: &str, #[case] sub: &str) {
    let builds = Builds::new();
    builds.makefile(&format!(
        "all: a b c d e f\n\t{sub} -f $(firstword $(MAKEFILE_LIST)) again\nagain: g h i j k l\n\
         a b c d e f g h i j k l:\n\t@{RECIPE}\n"
    ));
    builds.output(line);
    let counts = fs::read_to_string(builds.at("counts")).unwrap();
    let counts: Vec<usize> = counts.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert_eq!(counts.len(), 12);
    // Two tokens, plus the one job that every make runs without a token.
    let most = |counts: &[usize]| counts.iter().max().copied().unwrap_or_default();
    assert!((2..=3).contains(&most(&counts[..6])), "{counts:?}");
    assert!((2..=3).contains(&most(&counts[6..])), "{counts:?}");
    assert_eq!(builds.tokens(), 2);
}

/// CoreFreq's Makefile exports `PWD`; others export variables with short names.
#[test]
fn nested_makes_see_the_same_environment_as_without_the_wrapper() {
    let builds = Builds::new();
    builds.makefile(
        "export dir := drivers/x\nexport jobs := 7\nexport real word pid ends words path\n\
         export PWD := /elsewhere\nexport OLDPWD := /before\nexport SHLVL := 5\nexport _ := last\n\
         all:\n\t@$(MAKE) --no-print-directory -f show.mk\n",
    );
    fs::write(builds.at("show.mk"), "all:\n\t@tr '\\0' '\\n' </proc/$$PPID/environ | sort\n")
        .unwrap();
    let shown = |make: &str| {
        let done = builds.shell(&format!("{make} --no-print-directory")).assert().success();
        String::from_utf8(done.get_output().stdout.clone()).unwrap()
    };
    let with = shown("make");
    assert_eq!(with, shown("exec -a make /usr/bin/make"));
    assert!(with.contains("PWD=/elsewhere\n") && with.contains("jobs=7\n"), "{with}");
}

#[test]
fn make_variable_contains_the_name_that_the_caller_used() {
    let builds = Builds::new();
    builds.makefile("all:\n\t@echo '$(MAKE)'\n");
    assert_eq!(builds.output("make"), "make\n");
    let path = builds.at("bin/make");
    assert_eq!(builds.output(&path.display().to_string()), format!("{}\n", path.display()));
}

#[test]
fn bash_env_of_the_caller_is_not_read() {
    let builds = Builds::new();
    builds.makefile("all:\n\t@echo made\n");
    fs::write(builds.at("start"), "echo started\n").unwrap();
    for (program, said) in [("make", "made\n"), ("uname", "Linux\n")] {
        let mut call = builds.call(builds.at("bin").join(program));
        call.env("BASH_ENV", builds.at("start"));
        let done = call.assert().success();
        assert_eq!(String::from_utf8_lossy(&done.get_output().stdout), said);
    }
}

#[test]
fn uname_prints_the_target_kernel() {
    let builds = Builds::new();
    let output = |line: &str| builds.output(&format!("export kernelver=7.2.1-test; {line}"));
    assert_eq!(output("uname -r"), "7.2.1-test\n");
    assert_eq!(output("uname --kernel-release"), "7.2.1-test\n");
    assert!(output("uname -a").contains(" 7.2.1-test "));
    assert_eq!(output("uname -ms"), output("/usr/bin/uname -ms"));
    assert_eq!(output("kernelver= uname -r"), output("/usr/bin/uname -r"));
}

#[test]
fn links_to_dkms_confine_do_not_count_as_real_programs() {
    let builds = Builds::new();
    let mut make = Command::new(builds.at("bin/make"));
    let done = make.env("PATH", builds.at("bin")).assert().code(127);
    let said = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
    assert_eq!(said, "alpm-dkms: make: not found in PATH\n");
}
