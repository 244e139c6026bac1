//! The output on a terminal: bars during a run, and the same lines as in a pipe.

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
    root.depmod(); // for machines that have none
    root
}

#[expect(clippy::disallowed_methods, reason = "a program of ours, given a terminal")]
fn dkms(root: &TestRoot, term: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dkms"));
    command.env("PATH", root.search_path()).env("TERM", term).env_remove("MAKEFLAGS");
    command.arg("--root").arg(root.path()).args(words);
    command
}

/// All that is written to a terminal of 24 lines and 100 columns.
fn on_a_terminal(root: &TestRoot, term: &str, words: &[&str]) -> String {
    let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut command = dkms(root, term, words);
    command.stdout(terminal.slave.try_clone().unwrap());
    command.stderr(terminal.slave).stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command); // and with it our ends of the terminal
    let mut bytes = Vec::new();
    // Ends with an error when nobody has the terminal open any more.
    let _ = File::from(terminal.master).read_to_end(&mut bytes);
    assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&bytes));
    String::from_utf8(bytes).unwrap()
}

/// What is left to be read on a terminal to which this was written.
fn left(written: &str) -> Vec<String> {
    let mut terminal = vt100::Parser::new(24, 100, 0);
    terminal.process(written.as_bytes());
    terminal.screen().contents().lines().map(hide_time).collect()
}

/// `built in 0.3 s` takes another time on the next occasion.
fn hide_time(line: &str) -> String {
    line.split_once(" in ").map_or(line, |(what, _)| what).to_owned()
}

#[test]
fn bars_come_and_go_and_the_lines_stay() {
    let install = ["install", "foo/1.0", "-k", K1];
    let piped = dkms(&root(), "xterm", &install).output().unwrap();
    let piped = String::from_utf8(piped.stdout).unwrap();
    assert!(!piped.contains('\u{1b}') && !piped.contains("compiling"), "{piped}");
    let written = on_a_terminal(&root(), "xterm", &install);
    assert!(written.contains(&format!("foo/1.0 for {K1}: compiling")), "{written:?}");
    assert!(written.contains("0/1"), "{written:?}");
    assert_eq!(left(&written), piped.lines().map(hide_time).collect::<Vec<_>>());
}

#[test]
fn no_bars_where_they_are_not_wanted() {
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
fn a_page_of_timings_is_written_where_it_is_wanted() {
    let root = root();
    let page = root.at("page.html");
    let install = ["install", "foo/1.0", "-k", K1, "--timings", page.to_str().unwrap()];
    assert!(dkms(&root, "dumb", &install).output().unwrap().status.success());
    let text = root.read("page.html");
    assert!(text.starts_with("<!DOCTYPE html>") && text.ends_with("</html>\n"), "{text}");
    assert!(text.contains("1 build in ") && text.contains("class=\"compiling\""), "{text}");
    // A run that builds nothing leaves the page of the one that did.
    assert!(dkms(&root, "dumb", &install).output().unwrap().status.success());
    assert_eq!(root.read("page.html"), text);
}

#[test]
fn a_page_that_cannot_be_written_is_told() {
    let root = root();
    let install = ["install", "foo/1.0", "-k", K1, "--timings", "/no/such/page.html"];
    let output = dkms(&root, "dumb", &install).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("/no/such/page.html"), "{errors}");
    assert_eq!(output.status.code(), Some(1));
    assert!(root.exists(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko")));
}
