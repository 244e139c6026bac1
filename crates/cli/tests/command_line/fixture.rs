//! A small root, and functions that run `dkms` on it.

use assert_cmd::Command;
use assert_cmd::cargo::cargo_bin;
use nix::unistd::Uid;
use testroot::TestRoot;

pub const K1: &str = "7.2.12-arch1-1";
pub const K2: &str = "7.2.13-arch1-1";

/// Returns a root with two kernels and the source of `foo/1.0`.
pub fn root() -> TestRoot {
    let root = TestRoot::new();
    root.kernel(K1).pkgbase("linux").headers();
    root.kernel(K2).pkgbase("linux").headers();
    root.source("foo", "1.0");
    root.depmod(); // for machines without depmod
    root
}

/// The exit code and output of one call of `dkms`. In the output, `ROOT` replaces the root's path.
pub struct CallOutput {
    pub code: i32,
    pub out: String,
    pub errors: String,
}

pub fn dkms(root: &TestRoot, line: &str) -> CallOutput {
    call(Command::cargo_bin("dkms").unwrap(), root, line)
}

/// Runs `dkms` so that file modes apply. If the user is root, drops the capabilities that override
/// file modes.
pub fn dkms_obeying_modes(root: &TestRoot, line: &str) -> CallOutput {
    let program = cargo_bin("dkms");
    let command = if Uid::effective().is_root() {
        let mut command = Command::new("setpriv");
        command.arg("--bounding-set=-dac_override,-dac_read_search").arg(program);
        command
    } else {
        Command::new(program)
    };
    call(command, root, line)
}

/// Runs `dkms` through `before`, a program that runs its last arguments, such as `fakeroot`.
pub fn dkms_through(before: &[&str], root: &TestRoot, line: &str) -> CallOutput {
    let mut command = Command::new(before[0]);
    command.args(&before[1..]).arg(cargo_bin("dkms"));
    call(command, root, line)
}

pub fn call(mut command: Command, root: &TestRoot, line: &str) -> CallOutput {
    let output = command
        .env("PATH", root.search_path())
        .env_remove("MAKEFLAGS")
        .current_dir(root.path())
        .arg("--root")
        .arg(root.path())
        .args(line.split_whitespace())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        text.replace(&root.path().display().to_string(), "ROOT")
    };
    CallOutput {
        code: output.status.code().unwrap(),
        out: text(output.stdout),
        errors: text(output.stderr),
    }
}

/// Runs `dkms`, checks its exit code and returns its standard output.
pub fn run(root: &TestRoot, line: &str, code: i32) -> String {
    let output = dkms(root, line);
    assert_eq!(output.code, code, "dkms {line}\n{}{}", output.out, output.errors);
    output.out
}
