//! Wrapper programs put first in PATH while confs are evaluated and modules are built.

use std::fs;
use std::path::PathBuf;

use crate::machine::Machine;
use crate::os::durable::{self, FileError};

/// The name and text of each wrapper program.
///
/// - `uname` prints the release of the target kernel instead of the running one, since a Makefile
///   that calls `uname -r` needs the kernel it builds for.
/// - `make` ignores options such as `-j8` and joins the run's jobserver, since eight jobs per
///   module would overload the machine. It respects `-j1`.
const PROGRAMS: [(&str, &str); 2] =
    [("make", include_str!("path_programs/make")), ("uname", include_str!("path_programs/uname"))];

/// Writes each wrapper program that is missing or outdated. Returns the programs' directory.
///
/// # Errors
/// [`FileError`] if the directory or a program cannot be written.
pub(crate) fn path_programs(machine: &Machine) -> Result<PathBuf, FileError> {
    let dir = machine.trees.build_programs();
    for (name, text) in PROGRAMS {
        let program = dir.join(name);
        if !fs::read_to_string(&program).is_ok_and(|found| found == text) {
            durable::create_dirs(&dir)?;
            durable::write_program(&program, text)?;
        }
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rstest::rstest;

    use super::*;
    use crate::os::process::{Environment, Program, Tools};
    use testroot::TestRoot;

    /// Returns a root and an environment. PATH starts with the wrapper programs, followed by a
    /// `make` that prints its arguments and MAKEFLAGS.
    fn machine() -> (TestRoot, Environment) {
        let root = TestRoot::new();
        root.program("make", "printf '%s|' \"$0\" \"$@\"; echo \"$MAKEFLAGS\"");
        let env = env(&root);
        (root, env)
    }

    fn env(root: &TestRoot) -> Environment {
        let machine = Machine::for_hook(root.path());
        let programs = path_programs(&machine).unwrap();
        machine.env.first_in_path(&root.programs()).first_in_path(&programs)
    }

    fn output_of(line: &str, env: &Environment) -> String {
        let ended = Program::new("bash", env).args(["-c", line]).run().unwrap();
        assert!(ended.success(), "{ended:?}");
        String::from_utf8(ended.output).unwrap().trim_end().to_owned()
    }

    const OURS: &str = "-j --jobserver-fds=8,9 --jobserver-auth=8,9";

    #[rstest]
    #[case::plain("make all", "all")]
    #[case::number("make -j8 all", "all")]
    #[case::two_words("make -j 8 all", "all")]
    #[case::no_number("make -j all", "all")]
    #[case::long("make --jobs=8 V=1", "V=1")]
    #[case::long_two_words("make --jobs 8 -C 'a b'", "-C|a b")]
    #[case::among_others("make -kj8 all", "-k|all")]
    #[case::quoted("'make' -j$(nproc) all", "all")]
    #[case::not_an_option("make -C jobs -f j.mk -Ij8 -- -j8", "-C|jobs|-f|j.mk|-Ij8|--|-j8")]
    #[case::one_job("make -j1 all", "-j1|all")]
    #[case::last_option_is_one_job("make -j8 all -j 1", "-j1|all")]
    #[case::flags("MAKEFLAGS=-j8 make all", "all")]
    #[case::flags_without_dash("MAKEFLAGS=kj8 make all", "-k|all")]
    #[case::flags_with_a_variable("MAKEFLAGS='-j8 -- A=b' make all", "--|A=b|all")]
    fn make_uses_the_jobserver_of_the_run(#[case] line: &str, #[case] words: &str) {
        let (_root, env) = machine();
        let env = env.with("MAKEFLAGS", OURS).with("ALPM_DKMS_JOBSERVER", "1 8,9");
        let output = output_of(line, &env);
        let (program, rest) = output.split_once('|').unwrap();
        assert!(program.ends_with("programs/make"), "{program}");
        let (args, flags) = rest.rsplit_once('|').unwrap();
        assert_eq!(args, words);
        assert!(flags.starts_with("-j ") && flags.ends_with("--jobserver-auth=8,9"), "{flags}");
    }

    #[test]
    fn make_without_a_jobserver_keeps_its_arguments() {
        let (_root, env) = machine();
        assert!(output_of("make -j8 all", &env).ends_with("|-j8|all|"));
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
    fn real_make_runs_one_job_per_token(#[case] line: &str, #[case] sub: &str) {
        let root = TestRoot::new();
        let env = env(&root);
        let rules = format!(
            "all: a b c d e f\n\t{sub} -f $(firstword $(MAKEFILE_LIST)) again\nagain: g h i j k l\n\
             a b c d e f g h i j k l:\n\t@{RECIPE}\n"
        );
        fs::write(root.at("Makefile"), rules).unwrap();
        let tools = Tools::default();
        let client = jobserver::Client::new(2).unwrap();
        let make = Program::new("bash", &env).args(["-c", line]).cwd(root.path());
        let ended = make.jobserver(&client).confined(&tools).run().unwrap();
        assert!(ended.success(), "{ended:?}");
        let counts = root.read("counts");
        let counts: Vec<usize> = counts.lines().map(|line| line.trim().parse().unwrap()).collect();
        assert_eq!(counts.len(), 12);
        // Two tokens, plus the one job that every make runs without a token.
        let most = |counts: &[usize]| counts.iter().max().copied().unwrap_or_default();
        assert!((2..=3).contains(&most(&counts[..6])), "{counts:?} {ended:?}");
        assert!((2..=3).contains(&most(&counts[6..])), "{counts:?} {ended:?}");
        assert_eq!(client.available().unwrap(), 2);
    }

    #[test]
    fn uname_prints_the_target_kernel() {
        let root = TestRoot::new();
        let env = env(&root).with("kernelver", "7.2.1-test");
        assert_eq!(output_of("uname -r", &env), "7.2.1-test");
        assert!(output_of("uname -a", &env).contains(" 7.2.1-test "));
        assert_eq!(output_of("uname -m -s", &env), output_of("/usr/bin/uname -m -s", &env));
    }
}
