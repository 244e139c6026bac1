//! A small root, and calls of `dkms` on it.

use assert_cmd::Command;
use assert_cmd::cargo::cargo_bin;
use nix::unistd::Uid;
use testroot::TestRoot;

pub const K1: &str = "7.2.12-arch1-1";
pub const K2: &str = "7.2.13-arch1-1";

/// A root with two kernels and the source of `foo/1.0`.
pub fn root() -> TestRoot {
    let root = TestRoot::new();
    root.kernel(K1).pkgbase("linux").headers();
    root.kernel(K2).pkgbase("linux").headers();
    root.source("foo", "1.0");
    root.depmod(); // for machines that have none
    root
}

/// The output of one call, and its exit code.
pub struct CallOutput {
    pub code: i32,
    pub out: String,
    pub errors: String,
}

pub fn dkms(root: &TestRoot, line: &str) -> CallOutput {
    call(Command::cargo_bin("dkms").unwrap(), root, line)
}

/// `dkms` by somebody whom the modes of files concern: as whoever runs the tests, but for root
/// without what sets him above them.
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

fn call(mut command: Command, root: &TestRoot, line: &str) -> CallOutput {
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

/// Expects the exit code, and gives what was printed on standard output.
pub fn ends(root: &TestRoot, line: &str, code: i32) -> String {
    let said = dkms(root, line);
    assert_eq!(said.code, code, "dkms {line}\n{}{}", said.out, said.errors);
    said.out
}
