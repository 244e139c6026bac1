//! Tests of tab completion in bash, zsh and fish, on a terminal. `make shells` runs them.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};
use rstest::rstest;
use testroot::TestRoot;

const K: &str = "7.2.13-arch1-1";
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../completion");

/// Returns a root in which foo/1.0 is built and bar/2.0 is only a source. The root's `dkms`
/// completes words and records the arguments of all other calls.
fn root() -> TestRoot {
    let root = TestRoot::new();
    root.kernel(K).pkgbase("linux").headers();
    root.source("foo", "1.0");
    root.source("bar", "2.0");
    root.dir(format!("var/lib/dkms/foo/1.0/{K}/{}/module", std::env::consts::ARCH));
    root.link("var/lib/dkms/foo/1.0/source", "/usr/src/foo-1.0");
    root.write("archive-of-foo.tar.gz", "");
    let ours = env!("CARGO_BIN_EXE_dkms");
    let complete = "shift; exec \"$dkms\" __complete --root \"$ROOT\" \"$@\"";
    root.program("dkms", &format!("dkms={ours}; if [ \"$1\" = __complete ]; then {complete}; fi"));
    root
}

/// A shell on a terminal, without the user's settings.
struct Shell {
    master: File,
    child: std::process::Child,
    seen: String,
}

/// The prompt that the tests wait for.
const PROMPT: &str = "ready>";

impl Shell {
    #[expect(clippy::disallowed_methods, reason = "a shell for a test")]
    fn start(root: &TestRoot, words: &[&str]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let terminal = openpty(Some(&size), None).unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).args(words).current_dir(root.path());
        command
            .env_clear()
            .env("PATH", root.search_path())
            .env("TERM", "xterm")
            .env("HOME", root.path());
        command.stdin(Stdio::from(terminal.slave.try_clone().unwrap()));
        command.stdout(terminal.slave.try_clone().unwrap()).stderr(terminal.slave);
        let child = command.spawn().unwrap();
        Self { master: terminal.master.into(), child, seen: String::new() }
    }

    /// Waits for the prompt and types a line.
    fn types(&mut self, line: &str) {
        let mut buffer = [0; 4096];
        while !self.seen.contains(PROMPT) {
            let length = self.master.read(&mut buffer).unwrap();
            self.seen += &String::from_utf8_lossy(&buffer[..length]);
        }
        self.seen.clear();
        self.master.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits until the shell has exited.
    fn end(mut self) {
        let mut rest = Vec::new();
        // Reading fails once no process has the terminal open.
        let _ = self.master.read_to_end(&mut rest);
        self.child.wait().unwrap();
    }
}

/// Types text, including tabs, in bash. Returns the arguments with which `dkms` is then called.
fn bash(root: &TestRoot, typed: &str) -> String {
    let words = ["bash", "--norc", "--noprofile", "-i"];
    let start = format!("source {SCRIPTS}/dkms.bash; bind 'set bell-style none'; PS1='ready''>'");
    interactive(root, &words, &start, "PS1='rea''dy>'", typed)
}

fn zsh(root: &TestRoot, typed: &str) -> String {
    let start = format!(
        "fpath=({SCRIPTS} $fpath); autoload -Uz compinit; compinit -u -D; unsetopt beep; PS1='ready''>'"
    );
    interactive(root, &["zsh", "-f", "-i"], &start, "PS1='rea''dy>'", typed)
}

/// Starts a shell, and types the line `start` and then the text `typed`. Returns the arguments of
/// the calls of `dkms`, one call per line.
fn interactive(root: &TestRoot, words: &[&str], start: &str, prompt: &str, typed: &str) -> String {
    let mut shell = Shell::start(root, words);
    shell.master.write_all(format!("{prompt}\n").as_bytes()).unwrap();
    shell.types(start);
    shell.types(typed);
    shell.types("exit");
    shell.end();
    let calls = root.calls("dkms").into_iter();
    calls.filter(|call| !call.starts_with("__complete")).collect::<Vec<_>>().join("\n")
}

#[rstest]
#[case::command("dkms autoi\t", "autoinstall")]
#[case::added_for_remove("dkms remove \t", "remove foo/1.0")]
#[case::source_for_add("dkms add \t", "add bar/2.0")]
#[case::kernel("dkms remove foo/1.0 -k \t", &format!("remove foo/1.0 -k {K}"))]
#[case::with_sign("dkms install bar/2.0 --kernelver=7.\t", &format!("install bar/2.0 --kernelver={K}"))]
#[case::option("dkms status --js\t", "status --json")]
#[case::file("dkms ldtarball arch\t", "ldtarball archive-of-foo.tar.gz")]
#[ignore = "needs bash and zsh: run make shells"]
fn bash_and_zsh_complete(
    #[values(bash, zsh)] shell: fn(&TestRoot, &str) -> String,
    #[case] typed: &str,
    #[case] want: &str,
) {
    assert_eq!(shell(&root(), typed), want);
}

#[rstest]
#[case::commands("dkms auto", &["autoinstall\tinstall all modules that set AUTOINSTALL=yes"])]
#[case::added_for_remove("dkms remove ", &["foo/1.0\tadded"])]
#[case::source_for_add("dkms add ", &["bar/2.0\tsource"])]
#[case::kernel("dkms remove foo/1.0 -k ", &["7.2.13-arch1-1\tbuilt for"])]
#[case::with_sign("dkms install bar/2.0 --kernelver=7.", &["--kernelver=7.2.13-arch1-1\tlinux"])]
#[case::option("dkms status --js", &["--json\tprint JSON"])]
#[case::file("dkms ldtarball arch", &["archive-of-foo.tar.gz"])]
#[ignore = "needs fish: run make shells"]
fn fish_completes(#[case] line: &str, #[case] want: &[&str]) {
    let root = root();
    let script = Path::new(SCRIPTS).join("dkms.fish");
    let ask = format!("source {}; complete -C '{line}'", script.display());
    let output = fish(&root, &ask);
    assert_eq!(output.lines().collect::<Vec<_>>(), want);
}

#[expect(clippy::disallowed_methods, reason = "a shell for a test")]
fn fish(root: &TestRoot, script: &str) -> String {
    let output = Command::new("fish")
        .args(["--no-config", "-c", script])
        .env("PATH", root.search_path())
        .env("HOME", root.path())
        .current_dir(root.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
