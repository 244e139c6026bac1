//! Tests of remembered failures: their dependencies, and the changes that cause a retry.

use std::collections::BTreeSet;

use dkms_engine::facts::Subjects;
use dkms_engine::plan::{Note, Request};
use rstest::rstest;

use crate::fixture::{Fixture, K1, assert_clean, assert_failed, kernel, sync};

/// Adds foo/1.0, whose build runs `script` before it compiles, and counts its builds in `tries`.
fn add(fixture: &Fixture, script: &str) {
    let root = fixture.root.path().display().to_string();
    fixture.root.source("foo", "1.0").file("before.sh", script).conf_line(&format!(
        "MAKE='echo x >> {root}/tries; sh before.sh && make -C {root}/usr/lib/modules/{K1}/build \
         M=$PWD'"
    ));
}

fn tries(fixture: &Fixture) -> usize {
    fixture.root.read("tries").lines().count()
}

const PLUGIN: &str = "echo 'cc1: error: incompatible gcc/plugin versions' >&2; exit 1";

#[rstest]
#[case::compiler("gcc-of-test x.c", "gcc-of-test")]
#[case::linker("ld.lld -r x.o", "ld.lld")]
#[case::missing("quilt push || { echo 'x.c:1:2: error: not patched' >&2; exit 1; }", "quilt")]
#[case::missing_tool("awk-of-test", "awk-of-test")]
fn failure_depends_on_the_programs_of_the_build(#[case] script: &str, #[case] program: &str) {
    let mut fixture = Fixture::new();
    let is_compiler = ["gcc-of-test", "ld.lld"].contains(&program);
    if is_compiler {
        fixture.root.program(program, PLUGIN);
        fixture.change = |machine| machine.env = machine.env.clone().with("CC", "gcc-of-test");
    }
    // A compiler error makes it the module's own failure.
    add(&fixture, &format!("{script} || {{ echo 'x.c:1:2: error: no' >&2; exit 1; }}"));
    assert_failed(&fixture.sync(&["foo-1.0"], &[]), 10);
    assert_clean(&fixture.sync(&[], &[K1]));
    assert_eq!(tries(&fixture), 1, "retried although nothing changed");
    fixture.root.program(program, "exit 0");
    assert_clean(&fixture.sync(&[], &[K1]));
    assert_eq!(tries(&fixture), 2);
    assert!(fixture.installed(K1, "foo.ko"));
}

#[test]
fn reinstallation_of_the_module_or_the_headers_retries_a_failure() {
    let mut fixture = Fixture::new();
    add(&fixture, "echo 'x.c:1:2: error: no' >&2; exit 1");
    fixture.root.source("bar", "1.0").conf_line("BUILD_DEPENDS=foo");
    assert_failed(&fixture.sync(&["foo-1.0"], &[]), 10);
    for request in [sync(&["bar-1.0"], &[]), sync(&[], &[K1])] {
        let plan = fixture.plan(&request);
        let known = |note: &Note| matches!(note, Note::KnownFailure { .. });
        assert!(plan.notes.iter().any(known), "{plan}");
    }
    assert_failed(&fixture.sync(&["foo-1.0"], &[]), 10);
    assert_eq!(tries(&fixture), 2);
    let kernels = BTreeSet::from([kernel(K1)]);
    let arrived = Subjects { kernels: kernels.clone(), ..Subjects::default() };
    let request = Request::Sync { arrived, departed: Subjects::default(), headers: kernels };
    let report = fixture.run(&request);
    assert_eq!(report.failures().next().unwrap().1.code, 10);
    assert_eq!(tries(&fixture), 3);
}

#[rstest]
#[case::configure("echo 'conftest.c: write error: No space left on device' > config.log")]
#[case::in_a_subdirectory("mkdir -p sub; echo 'as: Disk quota exceeded' > sub/config.log")]
fn full_disk_that_only_configure_reports_is_transient(#[case] script: &str) {
    let mut fixture = Fixture::new();
    let says = "echo 'configure: error: C compiler cannot create executables' >&2";
    add(&fixture, &format!("{script}; {says}; exit 1"));
    let report = fixture.sync(&["foo-1.0"], &[]);
    let failed = report.failures().next().unwrap().1;
    assert!(failed.transient && failed.message.ends_with(": not enough disk space"), "{failed:?}");
    fixture.sync(&[], &[K1]);
    assert_eq!(tries(&fixture), 2, "the failure was remembered");
}
