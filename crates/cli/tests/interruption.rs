//! Tests of signals during builds, and of the state afterwards.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;
use testroot::TestRoot;

const K: &str = "7.2.12-arch1-1";

/// Returns a root with a kernel, a module that builds at once, and two modules whose builds wait
/// for the file `go` and leave daemons behind. Also returns the argument by which the daemons are
/// recognised: the number of seconds for which they sleep.
fn root() -> (TestRoot, String) {
    let root = TestRoot::new();
    root.kernel(K).pkgbase("linux").headers();
    root.depmod();
    root.source("quick", "1.0");
    let nanos = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let mark = format!("600.{nanos:09}{}", std::process::id());
    let top = root.path().display().to_string();
    let script = format!(
        "[ -e {top}/go ] && exit\nsetsid -f sleep {mark}\n(trap '' TERM INT HUP; sleep {mark}) &\n\
         touch {top}/reached.$1\nuntil [ -e {top}/go ]; do sleep 0.1; done\n"
    );
    for name in ["slow", "slower"] {
        root.source(name, "1.0").file("wait.sh", &script).conf_line(&format!(
            "MAKE='sh wait.sh {name} && make -C {top}/usr/lib/modules/{K}/build M=$dkms_tree/{name}/1.0/build'"
        ));
    }
    (root, mark)
}

#[expect(clippy::disallowed_methods, reason = "assert_cmd waits for the program's end")]
fn start(root: &TestRoot, before: &str, line: &str) -> Child {
    // These signals are ignored if the tests were started by `nohup` or as a background job of
    // `sh`, and a shell cannot change that for its children.
    Command::new("env")
        .args(["--default-signal=INT,HUP,TERM", "sh", "-c"])
        .args([&format!("{before} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_dkms"), "--root"])
        .arg(root.path())
        .args(line.split(' '))
        .env("PATH", root.search_path())
        .env_remove("MAKEFLAGS")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < patience, "{what}");
        sleep(Duration::from_millis(20));
    }
}

/// Waits until all `files` exist. Panics if `child` exits first.
fn wait_for(root: &TestRoot, child: &mut Child, files: &[&str]) {
    let patience = Instant::now() + Duration::from_secs(60);
    while let Some(missing) = files.iter().find(|file| !root.exists(file)) {
        let ended = child.try_wait().unwrap().is_some();
        if ended || Instant::now() > patience {
            let _ = child.kill();
            let mut errors = String::new();
            child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            panic!("{missing} is missing; exited: {ended}; stderr: {errors}");
        }
        sleep(Duration::from_millis(20));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `dkms`, checks its exit code and returns its output.
fn run(root: &TestRoot, line: &str, code: i32) -> Output {
    let output = start(root, "", line).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    output
}

/// Counts the running daemons that builds have left behind.
fn sleepers(mark: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.map(|entry| fs::read(entry.path().join("cmdline")));
    lines.filter(|line| line.as_ref().is_ok_and(|line| text(line).contains(mark))).count()
}

#[rstest]
#[case(Signal::SIGINT, 130)]
#[case(Signal::SIGTERM, 143)]
#[case(Signal::SIGHUP, 129)]
fn a_signal_stops_all_builds_and_leaves_them_pending(#[case] by: Signal, #[case] code: i32) {
    let (root, mark) = root();
    for name in ["quick", "slow", "slower"] {
        run(&root, &format!("add {name}/1.0"), 0);
    }
    let line = format!("-j 2 autoinstall -k {K}");
    let mut child = start(&root, "", &line);
    let quick = format!("usr/lib/modules/{K}/updates/dkms/quick.ko");
    wait_for(&root, &mut child, &[&quick, "reached.slow", "reached.slower"]);
    signal(&child, by);
    let asked = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(20), "exited only after {:?}", asked.elapsed());
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert_eq!(
        errors.trim(),
        format!(
            "dkms: error: interrupted by {by}: 2 of 3 modules not finished; pending work is finished \
             at the next boot\n  run: dkms autoinstall --pending"
        )
    );
    wait_until("a daemon is left", || sleepers(&mark) == 0);

    // The finished module is complete, and the unfinished ones have left no files.
    assert!(root.read(format!("usr/lib/modules/{K}/modules.dep")).contains("quick.ko"));
    let tree = root.listing("var/lib/dkms");
    for left in ["build/", ".log/", "/.tmp", K] {
        let lines = tree.lines().filter(|line| line.contains("slow") && line.contains(left));
        let lines: Vec<_> = lines.filter(|line| !line.contains(".pending/")).collect();
        assert_eq!(lines, [""; 0], "{left} remains in\n{tree}");
    }
    let status = format!("quick/1.0, {K}, x86_64: installed\nslow/1.0: added\nslower/1.0: added\n");
    assert_eq!(text(&run(&root, "status", 0).stdout), status);

    root.write("go", "");
    run(&root, "autoinstall --pending", 0);
    for name in ["quick", "slow", "slower"] {
        assert!(root.exists(format!("usr/lib/modules/{K}/updates/dkms/{name}.ko")), "{name}");
    }
    assert!(!root.exists("var/lib/dkms/.pending"));
}

/// The builds of one module for two kernels run in parallel, and a failed build would be repeated
/// alone.
#[rstest]
#[case::both_are_running("", &["reached.7.2.12-arch1-1", "reached.7.2.13-arch1-1"])]
#[case::one_has_failed("touch ROOT/failed; exit 1", &["reached.7.2.12-arch1-1", "failed"])]
#[case::one_has_changed_the_source(
    "touch ROOT/failed ROOT/usr/src/slow-1.0/x; exit 1",
    &["reached.7.2.12-arch1-1", "failed"]
)]
#[ignore = "needs root: run make unit"]
fn a_signal_interrupts_builds_of_one_module(#[case] script: &str, #[case] begun: &[&str]) {
    let (root, mark) = root();
    let other = "7.2.13-arch1-1";
    root.kernel(other).pkgbase("linux").headers();
    let wait = root.read("usr/src/slow-1.0/wait.sh");
    let script = script.replace("ROOT", &root.path().display().to_string());
    let wait = format!("[ $1 = {other} ] && {{ :; {script}\n}}\n{wait}");
    root.write("usr/src/slow-1.0/wait.sh", wait);
    let conf = root.read("usr/src/slow-1.0/dkms.conf");
    let conf = conf.replace("wait.sh slow", "wait.sh $kernelver").replace(K, "$kernelver");
    root.write("usr/src/slow-1.0/dkms.conf", conf);
    let mut child = start(&root, "", &format!("-j 2 install slow/1.0 -k {K} -k {other}"));
    wait_for(&root, &mut child, begun);
    sleep(Duration::from_millis(500));
    signal(&child, Signal::SIGTERM);
    let errors = text(&child.wait_with_output().unwrap().stderr);
    assert!(errors.contains("interrupted by SIGTERM: 2 of 2 modules not finished;"), "{errors}");
    wait_until("a daemon is left", || sleepers(&mark) == 0);
    let tree = root.listing("var/lib/dkms");
    for left in ["build/", ".log/", ".failed/", "x86_64"] {
        let lines: Vec<_> = tree.lines().filter(|line| line.contains(left)).collect();
        assert_eq!(lines, [""; 0], "{left} remains in\n{tree}");
    }
    root.write("usr/src/slow-1.0/wait.sh", "");
    run(&root, "autoinstall --pending", 0);
    for kernel in [K, other] {
        assert!(root.exists(format!("usr/lib/modules/{kernel}/updates/dkms/slow.ko")), "{kernel}");
    }
}

/// The signal arrives after a module has been installed and its script has exited, while `dkms` is
/// still printing the script's output. The output is longer than a pipe's buffer.
#[test]
fn a_finished_module_is_not_counted_as_unfinished() {
    let (root, mark) = root();
    root.source("wordy", "1.0").conf_line("POST_INSTALL=wordy.sh");
    let script = "usr/src/wordy-1.0/wordy.sh";
    let lines = "#!/bin/sh\necho the first line\nseq -f 'line %.0f' 10000\n";
    root.executable(script, lines);
    for name in ["wordy", "slow"] {
        run(&root, &format!("add {name}/1.0"), 0);
    }
    let mut child = start(&root, "", &format!("-j 2 autoinstall -k {K}"));
    wait_for(&root, &mut child, &["reached.slow"]);
    let mut stdout = BufReader::with_capacity(1, child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("the first line") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the script's output is missing");
    }
    signal(&child, Signal::SIGTERM);
    stdout.read_to_string(&mut line).unwrap();
    assert!(line.contains("line 10000\n"));
    let errors = text(&child.wait_with_output().unwrap().stderr);
    assert!(errors.contains("interrupted by SIGTERM: 1 of 2 modules not finished;"), "{errors}");
    wait_until("a daemon is left", || sleepers(&mark) == 0);
    assert!(root.read(format!("usr/lib/modules/{K}/modules.dep")).contains("wordy.ko"));

    root.write("go", "");
    run(&root, "autoinstall --pending", 0);
    assert!(!root.exists("var/lib/dkms/.pending"));
}

#[test]
fn an_interrupted_build_command_leaves_no_pending_work() {
    let (root, mark) = root();
    let mut child = start(&root, "", &format!("build slow/1.0 -k {K}"));
    wait_for(&root, &mut child, &["reached.slow"]);
    signal(&child, Signal::SIGINT);
    let errors = text(&child.wait_with_output().unwrap().stderr);
    assert!(errors.contains("module not finished; run the same command again"), "{errors}");
    wait_until("a daemon is left", || sleepers(&mark) == 0);
    assert!(!root.exists("var/lib/dkms/.pending"));
    root.write("go", "");
    run(&root, &format!("build slow/1.0 -k {K}"), 0);
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let (root, mark) = root();
    let mut child = start(&root, "trap '' HUP;", &format!("install slow/1.0 -k {K}"));
    wait_for(&root, &mut child, &["reached.slow"]);
    signal(&child, Signal::SIGHUP);
    root.write("go", "");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    wait_until("a daemon is left", || sleepers(&mark) == 0);
}

#[test]
fn a_signal_stops_a_run_that_waits_for_the_lock() {
    let (root, _) = root();
    let mut first = start(&root, "", &format!("install slow/1.0 -k {K}"));
    wait_for(&root, &mut first, &["reached.slow"]);
    let mut second = start(&root, "", &format!("install quick/1.0 -k {K}"));
    let mut line = String::new();
    BufReader::new(second.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains(&format!("waiting for another run to finish: process {}", first.id())));
    signal(&second, Signal::SIGTERM);
    assert_eq!(second.wait_with_output().unwrap().status.code(), None, "killed while it waited");
    root.write("go", "");
    assert_eq!(first.wait_with_output().unwrap().status.code(), Some(0));
    assert!(!root.exists(format!("usr/lib/modules/{K}/updates/dkms/quick.ko")));
}

/// A killed run leaves the same traces as a crash of the machine. A build that crashes the machine
/// must not be repeated at every boot.
#[test]
#[ignore = "needs root: run make unit"]
fn a_killed_run_counts_as_an_attempt_and_an_interrupted_one_does_not() {
    let (root, mark) = root();
    run(&root, "add slow/1.0", 0);
    let autoinstall = format!("autoinstall -k {K}");
    let [kill, int, term] = [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM];
    let lines =
        std::iter::once(autoinstall.as_str()).chain(std::iter::repeat("autoinstall --pending"));
    for (by, line) in [int, kill, int, kill, term, kill].into_iter().zip(lines) {
        let mut child = start(&root, "", line);
        wait_for(&root, &mut child, &["reached.slow"]);
        root.remove("reached.slow");
        signal(&child, by);
        child.wait_with_output().unwrap();
        wait_until("a daemon is left", || sleepers(&mark) == 0);
    }
    root.write("go", "");
    let output = run(&root, "autoinstall --pending", 0);
    let said = text(&output.stdout) + &text(&output.stderr);
    let want = format!("slow/1.0 for {K}: skipped after 3 attempts without success\n");
    assert!(said.contains(&want), "{said}");
    assert!(!root.exists(format!("usr/lib/modules/{K}/updates/dkms/slow.ko")));
    run(&root, &autoinstall, 0);
    assert!(root.exists(format!("usr/lib/modules/{K}/updates/dkms/slow.ko")));
    assert!(!root.exists("var/lib/dkms/.pending"));
}
