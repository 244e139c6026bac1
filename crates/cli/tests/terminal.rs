//! Tests of the output on a terminal: progress bars during a run, and afterwards the same lines as
//! in a pipe.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};
use testroot::TestRoot;

const K1: &str = "7.2.12-arch1-1";

fn root() -> TestRoot {
    let root = TestRoot::new();
    root.kernel(K1).pkgbase("linux").headers();
    root.source("foo", "1.0");
    root.depmod(); // for machines without depmod
    root
}

#[expect(clippy::disallowed_methods, reason = "a program of ours, given a terminal")]
fn dkms(root: &TestRoot, term: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dkms"));
    command.env("PATH", root.search_path()).env("TERM", term).env_remove("MAKEFLAGS");
    command.arg("--root").arg(root.path()).args(words);
    command
}

/// Returns everything that `dkms` writes to a terminal of 24 lines and 100 columns.
fn on_a_terminal(root: &TestRoot, term: &str, words: &[&str]) -> String {
    run_on_a_terminal(dkms(root, term, words))
}

fn run_on_a_terminal(mut command: Command) -> String {
    let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    command.stdout(terminal.slave.try_clone().unwrap());
    command.stderr(terminal.slave).stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command); // closes this process's copies of the terminal
    let mut bytes = Vec::new();
    // Reading fails once no process has the terminal open.
    let _ = File::from(terminal.master).read_to_end(&mut bytes);
    assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&bytes));
    String::from_utf8(bytes).unwrap()
}

/// Returns the lines that a terminal shows after the text `written` has been written to it.
fn visible_lines(written: &str) -> Vec<String> {
    let mut terminal = vt100::Parser::new(24, 100, 0);
    terminal.process(written.as_bytes());
    terminal.screen().contents().lines().map(hide_time).collect()
}

/// Cuts off the time at the end of a line, such as `in 0.3 s`, which differs between runs.
fn hide_time(line: &str) -> String {
    line.split_once(" in ").map_or(line, |(before, _)| before).to_owned()
}

#[test]
fn bars_disappear_and_lines_remain() {
    let install = ["install", "foo/1.0", "-k", K1];
    let piped = dkms(&root(), "xterm", &install).output().unwrap();
    let piped = String::from_utf8(piped.stdout).unwrap();
    assert!(!piped.contains('\u{1b}') && !piped.contains("compiling"), "{piped}");
    let written = on_a_terminal(&root(), "xterm", &install);
    assert!(written.contains(&format!("foo/1.0 for {K1}: compiling")), "{written:?}");
    assert!(written.contains("0/1"), "{written:?}");
    assert_eq!(visible_lines(&written), piped.lines().map(hide_time).collect::<Vec<_>>());
}

#[test]
fn draws_no_bars_with_verbose_or_quiet_or_on_dumb_terminals() {
    for (term, words) in [
        ("dumb", &["install", "foo/1.0", "-k", K1][..]),
        ("xterm", &["install", "foo/1.0", "-k", K1, "--verbose"]),
        ("xterm", &["install", "foo/1.0", "-k", K1, "-q"]),
    ] {
        let written = on_a_terminal(&root(), term, words);
        assert!(!written.contains('\u{1b}'), "{term} {words:?}: {written:?}");
    }
}

#[test]
fn writes_a_timeline() {
    let root = root();
    let page = root.at("page.html");
    let install = ["install", "foo/1.0", "-k", K1, "--timings", page.to_str().unwrap()];
    assert!(dkms(&root, "dumb", &install).output().unwrap().status.success());
    let text = root.read("page.html");
    assert!(text.starts_with("<!DOCTYPE html>") && text.ends_with("</html>\n"), "{text}");
    assert!(text.contains("1 build in ") && text.contains("class=\"compiling\""), "{text}");
    // A run that builds nothing does not overwrite the timeline.
    assert!(dkms(&root, "dumb", &install).output().unwrap().status.success());
    assert_eq!(root.read("page.html"), text);
}

#[test]
fn reports_a_timeline_that_cannot_be_written() {
    let root = root();
    let install = ["install", "foo/1.0", "-k", K1, "--timings", "/no/such/page.html"];
    let output = dkms(&root, "dumb", &install).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("/no/such/page.html"), "{errors}");
    assert_eq!(output.status.code(), Some(1));
    assert!(root.exists(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko")));
}

#[test]
fn bars_need_no_threads() {
    let root = root();
    let mut command = dkms(&root, "xterm", &["install", "foo/1.0", "-k", K1]);
    // No thread gets a stack of this size.
    command.env("RUST_MIN_STACK", (1_u64 << 50).to_string());
    let written = run_on_a_terminal(command);
    assert!(!written.contains("panicked"), "{written:?}");
    assert!(written.contains(&format!("foo/1.0 for {K1}: compiling")), "{written:?}");
}

/// Returns the lines that a terminal shows for `dkms status`, and the escape sequences of their
/// colours.
fn status(root: &TestRoot, change: impl FnOnce(&mut Command)) -> (Vec<String>, Vec<String>) {
    let mut command = dkms(root, "xterm", &["status"]);
    change(&mut command);
    let written = run_on_a_terminal(command);
    let colours = written.split('\u{1b}').skip(1).filter_map(|part| Some(part.split_once('m')?.0));
    let colours = colours.map(str::to_owned).collect();
    (visible_lines(&written), colours)
}

#[test]
fn status_shows_colours_and_reasons_only_on_a_terminal() {
    let root = root();
    root.source("bar", "1.0").conf_line("AUTOINSTALL=no");
    root.source("bad", "1.0").conf_line("MAKE=\"echo it.c:1:2: error: no such thing; false\"");
    root.source("old", "1.0").conf_line("BUILD_EXCLUSIVE_KERNEL=\"^4\"");
    for (command, module) in
        [("install", "foo"), ("add", "bar"), ("add", "old"), ("install", "bad")]
    {
        let _ =
            dkms(&root, "xterm", &[command, &format!("{module}/1.0"), "-k", K1]).output().unwrap();
    }
    let piped = dkms(&root, "xterm", &["status"]).output().unwrap();
    let piped = String::from_utf8(piped.stdout).unwrap();
    let lines = "bad/1.0: added\nbar/1.0: added\nfoo/1.0, 7.2.12-arch1-1, x86_64: installed\nold/1.0: added\n";
    assert_eq!(piped.replace(K1, "7.2.12-arch1-1"), lines);
    let (shown, colours) = status(&root, |_| ());
    let shown: Vec<String> = shown.iter().map(|line| line.replace(K1, "K")).collect();
    assert_eq!(
        shown,
        [
            "bad/1.0: added",
            "  K: failed: it.c:1:2: error: no such thing",
            "bar/1.0: added",
            "  K: not built automatically: AUTOINSTALL=\"no\"",
            "foo/1.0, K, x86_64: installed",
            "old/1.0: added",
            "  K: skipped: BUILD_EXCLUSIVE_KERNEL is ^4",
        ]
    );
    assert!(colours.iter().any(|code| code == "[31") && colours.iter().any(|code| code == "[32"));
    let (plain, colours) = status(&root, |command| {
        command.env("NO_COLOR", "1");
    });
    assert_eq!((plain.len(), colours.len()), (shown.len(), 0));
}
