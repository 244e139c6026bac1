//! Tests of the hooks of one transaction. As with pacman, the same process runs them in order.

#![expect(clippy::unwrap_used, reason = "this file contains only tests")]

use assert_cmd::Command;
use rstest::rstest;
use testroot::TestRoot;

/// Runs the hooks after a transaction, and returns the output of each.
fn hooks(root: &TestRoot, targets: &'static str) -> [String; 3] {
    ["dkms-install", "dkms-remove", "mkinitcpio-dkms"].map(|hook| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin(hook));
        command.arg("--root").arg(root.path()).env("PATH", root.search_path());
        let output = command.write_stdin(targets).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    })
}

/// Each case is a file, its content, and a part of the message about it.
#[rstest]
#[case::settings("etc/dkms/framework.conf", "sign_file = /x\n", "1: sign_file: command not found")]
#[case::open_block("etc/dkms/framework.conf.d/x.conf", "if true; then\n", "syntax error")]
#[case::toml("etc/dkms/alpm-dkms.toml", "[build]\njobs = 'many'\n", "build.jobs: ignored: ")]
#[case::missing_git(
    "usr/src/foo-1.0/dkms.conf",
    "PACKAGE_NAME=foo\nPACKAGE_VERSION=\"$(no-git describe)\"\nBUILT_MODULE_NAME=foo\n",
    "line 2: no-git: command not found"
)]
#[case::pipe(
    "usr/src/foo-1.0/dkms.conf",
    "PACKAGE_NAME=foo\n\nPACKAGE_VERSION=\"$(echo 1 | no-such-sed)\"\n",
    "line 3: no-such-sed: command not found"
)]
fn a_problem_is_reported_once_in_a_transaction(
    #[case] file: &str,
    #[case] text: &str,
    #[case] message: &str,
) {
    let root = TestRoot::new();
    root.kernel("7.2.13-arch1-1").pkgbase("linux").headers();
    root.source("foo", "1.0");
    root.depmod();
    root.write(file, text);
    // The next transaction reports it again.
    for _ in 0..2 {
        let said = hooks(&root, "usr/src/foo-1.0/dkms.conf\n");
        let counts = said.each_ref().map(|said| said.matches(message).count());
        assert_eq!(counts, [1, 0, 0], "{said:#?}");
        let line = said[0].lines().find(|line| line.contains(message)).unwrap();
        assert!(line.contains("warning: ") && line.contains(file), "{line}");
    }
}
