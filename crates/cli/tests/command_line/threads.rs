//! Tests of machines on which threads cannot be started, for example because of a pids limit.

use assert_cmd::Command;
use assert_cmd::cargo::cargo_bin;
use rstest::rstest;

use crate::fixture::{K1, call, root, run};

/// A limit on processes would also apply to the programs of a build. Stacks that are too large for
/// the address space prevent only the start of threads, and cause the same error.
#[rstest]
#[case::no_thread("1125899906842624", "unlimited")]
#[case::few_threads("268435456", "1200000000")]
fn builds_go_on_with_the_threads_there_are(#[case] stack: &str, #[case] address_space: &str) {
    let root = root();
    for module in ["bar", "baz", "sound"] {
        root.source(module, "1.0").conf_line("PRE_BUILD=slow.sh");
        root.executable(format!("usr/src/{module}-1.0/slow.sh"), "#!/bin/sh\nsleep 0.3\n");
    }
    root.source("broken", "1.0").broken();
    root.source("needy", "1.0").conf_line("BUILD_DEPENDS=bar");
    for module in ["foo", "bar", "baz", "sound", "broken", "needy"] {
        run(&root, &format!("add {module}/1.0"), 0);
    }
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--as={address_space}"))
        .arg(cargo_bin("dkms"))
        .env("RUST_MIN_STACK", stack);
    let output = call(command, &root, &format!("autoinstall -k {K1} -j 4"));
    let said = format!("{}{}", output.out, output.errors);
    assert!(!said.contains("panicked"), "{said}");
    for module in ["foo", "bar", "baz", "sound", "needy"] {
        let object = format!("usr/lib/modules/{K1}/updates/dkms/{module}.ko");
        assert!(root.exists(&object), "{object} is missing\n{said}");
    }
    assert!(said.contains("this kernel is too new"), "{said}");
    assert!(
        said.contains("warning: fewer builds run in parallel: cannot start a thread: "),
        "{said}"
    );
}
