#![expect(clippy::disallowed_methods, reason = "workers and pacman are real processes")]

use std::thread;

use rstest::rstest;

use super::*;

/// Runs a bash script as a worker. Starts a thread, so that only this thread enters the new pid
/// namespace.
fn run(script: &str, pacman: Option<u32>, timeout: Duration) -> io::Result<Ending> {
    let mut worker = Command::new("bash");
    worker.args(["-c", script]);
    let supervisor = Supervisor { pacman, timeout };
    thread::scope(|scope| scope.spawn(|| supervisor.run(worker, b"input")).join().unwrap())
}

#[rstest]
#[case::status("exit 79", Ending::Exited(79))]
#[case::input("read -r input; [[ $input == input && $$ == 1 ]]", Ending::Exited(0))]
#[case::panic("kill -ABRT $BASHPID; exec sh -c 'kill -ABRT $$; exit 3'", Ending::Exited(3))]
#[ignore = "needs root: run make unit"]
fn tells_how_the_worker_ended(#[case] script: &str, #[case] want: Ending) {
    assert_eq!(run(script, None, Duration::MAX).unwrap(), want);
}

#[test]
#[ignore = "needs root: run make unit"]
fn a_slow_worker_and_its_programs_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("written");
    let script = format!("(while sleep 0.05; do date >> {}; done) & sleep 100", file.display());
    let ending = run(&script, None, Duration::from_millis(300)).unwrap();
    assert_eq!(ending, Ending::TimedOut);
    let size = || fs::metadata(&file).unwrap().len();
    let before = size();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(size(), before);
}

#[test]
#[ignore = "needs root: run make unit"]
fn the_worker_is_killed_when_pacman_ends() {
    let mut pacman = Command::new("sleep").arg("100").spawn().unwrap();
    let id = pacman.id();
    let killed = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        pacman.kill().unwrap();
        pacman.wait().unwrap();
    });
    assert_eq!(run("sleep 100", Some(id), Duration::MAX).unwrap(), Ending::PacmanEnded);
    killed.join().unwrap();
}

#[test]
#[ignore = "needs root: run make unit"]
fn a_missing_program_is_an_error() {
    let supervisor = Supervisor { pacman: None, timeout: Duration::MAX };
    let started = || supervisor.run(Command::new("/no/such/program"), b"");
    let result = thread::scope(|scope| scope.spawn(started).join().unwrap());
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
}
