//! Tests of the confinement of programs.

#![expect(clippy::unwrap_used, reason = "a test fails if its directory cannot be created")]

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use rstest::rstest;

/// Returns a call of `dkms-confine` that runs `script`, confined by `options`.
fn confined(options: &[&str], script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dkms-confine"));
    command.args(["--parent", &std::process::id().to_string()]).args(options);
    command.args(["--", "sh", "-c", script]);
    command
}

fn output(mut command: Command) -> String {
    let done = command.assert().success();
    String::from_utf8(done.get_output().stdout.clone()).unwrap()
}

/// Returns the exit code and the messages of `command`.
fn failure(mut command: Command) -> (Option<i32>, String) {
    let done = command.assert().failure();
    let done = done.get_output();
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[rstest]
#[case::exits("exit 3", 3)]
#[case::killed("kill -9 $$", 137)]
#[case::kills_its_group_leader("kill -TERM $$; sleep 9", 143)]
#[ignore = "needs root: run make unit"]
fn exits_with_the_code_of_its_program(#[case] script: &str, #[case] code: i32) {
    assert_eq!(failure(confined(&["--pid-namespace"], script)).0, Some(code));
}

/// Covers both processes of the confinement.
#[rstest]
#[case::outside(&["--parent", "1"])]
#[case::first_in_the_namespaces(&["--first", "--parent", "1"])]
fn does_not_run_the_program_if_its_parent_has_ended(#[case] options: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dkms-confine"));
    command.args(options).args(["--", "echo", "run"]);
    let message = "alpm-dkms: cannot confine echo: the run of alpm-dkms has ended\n";
    assert_eq!(failure(command), (Some(125), message.to_owned()));
}

#[test]
fn names_a_program_that_cannot_be_run() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dkms-confine"));
    command.args(["--", "/no/program"]);
    let (code, message) = failure(command);
    assert_eq!(code, Some(127));
    assert!(message.starts_with("alpm-dkms: cannot run /no/program: No such file"), "{message}");
}

#[test]
fn refuses_a_call_without_arguments() {
    let command = Command::new(env!("CARGO_BIN_EXE_dkms-confine"));
    assert_eq!(failure(command).0, Some(125));
}

#[test]
#[ignore = "needs root: run make unit"]
fn only_the_program_sees_its_mounts() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for name in ["own", "machine"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(dir.path().join(name).join("owner"), name).unwrap();
    }
    let file = at("machine/owner");
    let cwd = at("machine");
    let options = ["--pid-namespace", "--own-mounts", "--bind", &at("own"), &cwd, "--cwd", &cwd];
    assert_eq!(output(confined(&options, &format!("cat owner {file}"))), "ownown");
    assert_eq!(fs::read_to_string(&file).unwrap(), "machine");
}

#[test]
#[ignore = "needs root: run make unit"]
fn a_needed_path_stays_visible_below_a_private_directory() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::create_dir_all(at("tmp/needed/deep")).unwrap();
    fs::create_dir(at("own")).unwrap();
    fs::write(at("tmp/file"), "file").unwrap();
    fs::write(at("tmp/other"), "other").unwrap();
    let (tmp, own) = (at("tmp"), at("own"));
    let binds = [
        ["--bind", &at("tmp/needed"), &at("own/needed")],
        ["--bind", &at("tmp/file"), &at("own/file")],
        ["--bind", &own, &tmp],
    ];
    let options = [vec!["--pid-namespace", "--own-mounts"], binds.concat()].concat();
    let script = format!("cd {tmp}; ls; cat file; touch needed/deep/new mine");
    assert_eq!(output(confined(&options, &script)), "file\nneeded\nfile");
    assert!(Path::new(&at("tmp/needed/deep/new")).exists());
    assert!(Path::new(&at("own/mine")).exists() && !Path::new(&at("tmp/mine")).exists());
}

#[test]
#[ignore = "needs root: run make unit"]
fn proc_shows_only_the_programs_own_processes() {
    let options = ["--pid-namespace", "--own-mounts", "--mask", "/proc/version"];
    let script = "ls /proc | grep -c '^[0-9]'; cat /proc/1/comm; cat /proc/version";
    let said = output(confined(&options, script));
    let [processes, first] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(processes.parse::<usize>().unwrap() <= 4, "{said}");
    assert_eq!(first, "dkms-confine");
}

#[rstest]
#[case::daemon("setsid sleep 600.25 >/dev/null 2>&1 & exit 4", 4, "sleep")]
#[case::several("nohup sleep 600.25 >&- 2>&- & yes >/dev/null & exit 5", 5, "sleep, yes")]
#[ignore = "needs root: run make unit"]
fn background_processes_are_ended_and_named(
    #[case] script: &str,
    #[case] code: i32,
    #[case] names: &str,
) {
    let (found, said) = failure(confined(&["--pid-namespace"], script));
    assert_eq!(found, Some(code));
    assert_eq!(said, format!("alpm-dkms: sh: ended its background processes: {names}\n"));
}

#[test]
#[ignore = "needs root: run make unit"]
fn a_background_process_may_write_its_last_lines() {
    let mut command = confined(&["--pid-namespace"], "(sleep 0.05; echo last) & echo first");
    let done = command.assert().success().stderr("");
    assert_eq!(String::from_utf8_lossy(&done.get_output().stdout), "first\nlast\n");
}
