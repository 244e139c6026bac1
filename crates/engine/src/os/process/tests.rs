//! Tests with real programs that fail, never end, become daemons or are confined.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rstest::rstest;

use super::*;

use crate::os::process::{Ended, Environment, How, Output, Program, Stop, Tools};

fn sh<'a>(script: &str, env: &'a Environment) -> Program<'a> {
    Program::new("bash", env).args(["-c", script])
}

fn run(script: &str) -> Ended {
    sh(script, &Environment::fixed()).run().unwrap()
}

#[rstest]
#[case::succeeds("exit 0", How::Exited(0), "exit status 0")]
#[case::fails("exit 2", How::Exited(2), "exit status 2")]
#[case::killed("kill -9 $$", How::Killed(9), "killed by signal 9")]
#[case::child_killed("bash -c 'kill -9 $$'; exit", How::Killed(9), "killed by signal 9")]
fn reports_the_exit_status(#[case] script: &str, #[case] how: How, #[case] text: &str) {
    let ended = run(script);
    assert_eq!((ended.how, ended.how.to_string().as_str()), (how, text));
    assert_eq!(ended.success(), how == How::Exited(0));
}

#[test]
fn captures_both_streams_separately() {
    let ended = run("echo out; echo first >&2; echo last >&2");
    assert_eq!(
        (ended.output.as_slice(), ended.errors.as_slice()),
        (&b"out\n"[..], &b"first\nlast\n"[..])
    );
    assert_eq!(ended.complaint(), "first\nlast");
}

#[test]
fn limits_the_captured_output() {
    let env = Environment::fixed();
    let ended = sh("yes | head -c 9000000", &env).run().unwrap();
    assert!(ended.success());
    assert_eq!(ended.output.len(), Output::KEPT);
}

#[test]
fn writes_a_long_standard_input_while_reading_the_output() {
    let env = Environment::fixed();
    let text = vec![b'x'; 400_000];
    assert_eq!(sh("cat", &env).stdin(text.clone()).run().unwrap().output, text);
    assert!(sh("exec <&-; sleep 0.1", &env).stdin(text).run().unwrap().success());
    assert_eq!(run("cat; echo end").output, b"end\n");
}

#[test]
fn passes_only_the_given_environment() {
    let env = Environment::fixed().with("kernelver", "7.2.1");
    let ended = Program::new("env", &env).run().unwrap();
    let output = String::from_utf8(ended.output).unwrap();
    let mut lines: Vec<_> = output.lines().collect();
    lines.sort_unstable();
    let path = "PATH=/usr/bin:/usr/sbin:/bin:/sbin";
    assert_eq!(lines, ["HOME=/root", "LC_ALL=C", path, "kernelver=7.2.1"]);
}

#[test]
fn passes_on_the_output_in_whole_lines() {
    let mut lines = Vec::new();
    let mut keep = |line: &str| lines.push(line.to_owned());
    let env = Environment::fixed();
    let script = r"printf 'a\nb'; sleep 0.05; printf 'c\n\n' >&2; printf 'd\377'";
    sh(script, &env).output(Output::Lines(&mut keep)).run().unwrap();
    assert_eq!(lines, ["a", "bc", "", "d\u{fffd}"]);
}

#[test]
fn appends_both_streams_to_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("make.log");
    fs::write(&path, "head\n").unwrap();
    let log = File::options().append(true).open(&path).unwrap();
    let env = Environment::fixed();
    let ended = sh("echo a; echo b >&2; echo c", &env).output(Output::Log(log)).run().unwrap();
    assert!(ended.output.is_empty());
    assert_eq!(fs::read_to_string(&path).unwrap(), "head\na\nb\nc\n");
}

#[test]
fn does_not_wait_for_a_background_process() {
    let started = Instant::now();
    let ended = run("sleep 20 & echo done");
    assert_eq!(ended.output, b"done\n");
    let ended = run("yes & sleep 0.05");
    assert!(ended.success());
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[rstest]
#[case::namespace(Bond::Namespace)]
#[case::signal(Bond::DeathSignal)]
#[case::none(Bond::None)]
fn a_timeout_kills_the_children(#[case] bond: Bond) {
    let tools = tools_with(bond);
    let env = Environment::fixed();
    let mark = mark();
    let script = format!("sleep {mark} & sleep {mark}; true");
    let program = sh(&script, &env).confined(&tools).deadline(Duration::from_millis(300));
    let ended = program.run().unwrap();
    assert_eq!(ended.how, How::TimedOut);
    assert!(ended.elapsed < Duration::from_secs(10));
    assert_gone(&mark);
}

#[rstest]
#[case::namespace(Bond::Namespace)]
#[case::signal(Bond::DeathSignal)]
#[case::none(Bond::None)]
fn a_timeout_kills_daemons(#[case] bond: Bond) {
    let tools = tools_with(bond);
    let env = Environment::fixed();
    let mark = mark();
    let script = format!("setsid -f sleep {mark}; setsid sleep {mark} & setsid sleep {mark}");
    let program = sh(&script, &env).confined(&tools).deadline(Duration::from_millis(500));
    assert_eq!(program.run().unwrap().how, How::TimedOut);
    assert_gone(&mark);
}

#[rstest]
#[case::namespace(Bond::Namespace)]
#[case::signal(Bond::DeathSignal)]
fn a_stop_request_kills_confined_programs_only(#[case] bond: Bond) {
    let stop = Stop::after(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(stop.asked(), Some(nix::sys::signal::Signal::SIGTERM));
    let tools = Tools { stop, ..tools_with(bond) };
    let mark = mark();
    let script = format!("setsid sleep {mark} & sleep {mark}");
    let env = Environment::fixed();
    assert_eq!(sh(&script, &env).confined(&tools).run().unwrap().how, How::Interrupted);
    assert_gone(&mark);
    assert!(sh("sleep 0.1", &env).run().unwrap().success(), "unconfined programs keep running");
}

#[rstest]
#[case::namespace(Bond::Namespace)]
#[case::signal(Bond::DeathSignal)]
fn background_processes_end_with_their_confined_program(#[case] bond: Bond) {
    let tools = tools_with(bond);
    let mark = mark();
    let script = format!("sleep {mark} & exit 3");
    let ended = sh(&script, &Environment::fixed()).confined(&tools).run().unwrap();
    assert_eq!(ended.how, How::Exited(3));
    assert_gone(&mark);
}

/// Starts this test binary again as an engine that runs a confined program, and kills that engine.
#[test]
fn nothing_survives_a_killed_engine() {
    let env = Environment::of_caller().with("SLEEP_FOREVER", mark());
    let mark = env.get("SLEEP_FOREVER").unwrap().to_str().unwrap().to_owned();
    let myself = std::env::current_exe().unwrap();
    let engine = Program::new(myself, &env).args([
        "--exact",
        "os::process::tests::sleeps_forever",
        "--ignored",
        "--nocapture",
    ]);
    let (mut output, stdout) = io::pipe().unwrap();
    let (stdin, _) = io::pipe().unwrap();
    let stderr = stdout.try_clone().unwrap();
    let running = engine.start(stdin.into(), stdout.into(), stderr.into()).unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"asleep\n") {
        let mut byte = [0];
        assert_eq!(output.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&line));
        line.push(byte[0]);
    }
    while sleepers(&mark).is_empty() {
        sleep(Duration::from_millis(10));
    }
    let pid = nix::unistd::Pid::from_raw(running.child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_gone(&mark);
}

#[test]
#[ignore = "started and killed by nothing_survives_a_killed_engine"]
fn sleeps_forever() {
    let Ok(mark) = std::env::var("SLEEP_FOREVER") else { return };
    let tools = Tools::default();
    let script = match tools.confinement.bond(&tools) {
        // Like daemons, the processes run in sessions of their own, outside the program's
        // process group.
        Bond::Namespace => {
            format!("setsid sleep {mark} & setsid -f sleep {mark}; sleep 0.3; echo asleep; wait")
        }
        _ => format!("echo asleep; exec sleep {mark}"),
    };
    let stdout = File::options().append(true).open("/dev/stdout").unwrap();
    let env = Environment::fixed();
    sh(&script, &env).confined(&tools).output(Output::Log(stdout)).run().unwrap();
}

#[test]
fn reports_a_missing_program_or_directory() {
    let env = Environment::fixed();
    let error = Program::new("no-such", &env).args(["a b", "c"]).run().unwrap_err();
    insta::assert_snapshot!(error, @"cannot run `no-such 'a b' c`: program not found: no-such; install the package that provides it");
    let error = Program::new("bash", &env).cwd("/no/such").run().unwrap_err();
    insta::assert_snapshot!(error, @"cannot run `bash`: directory not found: /no/such");
    let tools = Tools::default();
    let error = Program::new("/etc/passwd", &env).confined(&tools).run().unwrap_err();
    insta::assert_snapshot!(error, @"cannot run `/etc/passwd`: program not found: /etc/passwd; install the package that provides it");
}

/// Returns the default tools with `bond`. If `bond` is a namespace and namespaces are not
/// available, a death signal replaces it.
fn tools_with(bond: Bond) -> Tools {
    let strongest = Tools::default();
    let bond = match strongest.confinement.bond(&strongest) {
        Bond::DeathSignal if bond == Bond::Namespace => Bond::DeathSignal,
        _ => bond,
    };
    Tools { confinement: Confinement::known(bond), ..strongest }
}

/// Returns a unique number of seconds for `sleep`, so that [`sleepers`] can find the process.
fn mark() -> String {
    let nanos = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    format!("600.{nanos:09}{}", std::process::id())
}

/// Returns the /proc directories of the `sleep` processes with this mark as an argument.
fn sleepers(mark: &str) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let sleeps = |path: &PathBuf| {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|&byte| byte == 0).collect();
        words[0].ends_with(b"sleep") && words.contains(&mark.as_bytes())
    };
    processes.filter(sleeps).collect()
}

fn assert_gone(mark: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !sleepers(mark).is_empty() {
        assert!(Instant::now() < deadline, "still running: {:?}", sleepers(mark));
        sleep(Duration::from_millis(10));
    }
}
