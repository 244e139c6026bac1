//! Tests of failed builds: their causes, their reports, and the files that are kept.

use std::path::Path;

use dkms_engine::dkms_tree::KnownFailure;
use dkms_engine::failure::Failure;
use dkms_engine::os::process::{Environment, Program};
use dkms_engine::plan::Verb;
use dkms_engine::report::Report;

use crate::fixture::{Fixture, K1, assert_clean};

/// Adds the module foo/1.0, whose build is the shell script `script`. In the script, `$ROOT` is the
/// test root.
fn module(fixture: &Fixture, script: &str) {
    let root = fixture.root.path().display().to_string();
    fixture
        .root
        .source("foo", "1.0")
        .file("make.sh", &format!("ROOT={root}\n{script}\n"))
        .conf_line("MAKE='sh make.sh'");
}

fn failure(report: &Report) -> Failure {
    let failures: Vec<_> = report.failures().collect();
    let [(_, failure)] = failures[..] else { panic!("{failures:#?}") };
    failure.clone()
}

fn is_remembered(fixture: &Fixture) -> bool {
    let path = format!("var/lib/dkms/.failed/foo-1.0-{K1}-x86_64.toml");
    KnownFailure::read(&fixture.root.at(path)).is_some_and(|failure| !failure.transient)
}

#[test]
fn cause_is_from_the_step_that_failed() {
    for (before, make, cause) in [
        ("echo 'a.c:1:1: error: tolerated'", "echo 'no such card'; exit 1", "no such card"),
        ("echo 'flex: not found' >&2", "echo first; echo last; false", "last"),
    ] {
        let mut fixture = Fixture::new();
        module(&fixture, make);
        fixture.script("PRE_BUILD", before);
        let failed = failure(&fixture.install());
        assert_eq!((failed.cause.as_deref(), failed.transient), (Some(cause), false), "{failed:?}");
        assert!(is_remembered(&fixture));
    }
    // make succeeds, so its output explains nothing.
    let mut fixture = Fixture::new();
    module(&fixture, "echo 'x.c:1:1: error: never mind'");
    let failed = failure(&fixture.install());
    assert_eq!((failed.code, failed.cause), (7, None));
    // A script that fails is a step like any other.
    let mut fixture = Fixture::new();
    fixture.script("PRE_BUILD", "echo cannot find the firmware; exit 3");
    let failed = failure(&fixture.install());
    assert_eq!((failed.code, failed.cause.as_deref()), (3, Some("cannot find the firmware")));
}

#[test]
fn builds_speak_english() {
    for (name, value) in [("LC_ALL", "de_DE.UTF-8"), ("LANG", "fr_FR.UTF-8")] {
        let mut fixture = Fixture::new();
        let speak =
            "case ${LC_ALL:-${LC_MESSAGES:-$LANG}} in C) echo 'error: no' ;; *) echo nein ;; esac";
        module(&fixture, &format!("{speak}; exit 1"));
        fixture.change = match name {
            "LC_ALL" => |machine| {
                machine.env = machine.env.clone().with("LC_ALL", "de_DE.UTF-8");
            },
            _ => |machine| {
                let env = machine.env.clone().with("LC_ALL", "");
                machine.env = env.with("LANG", "fr_FR.UTF-8");
            },
        };
        assert_eq!(failure(&fixture.install()).cause.as_deref(), Some("error: no"), "{value}");
    }
}

fn names_network(failed: &Failure) -> bool {
    failed
        .means
        .as_ref()
        .is_some_and(|means| means.contains("the network may be unavailable to hooks"))
}

#[test]
fn failures_of_the_machine_and_the_network_are_not_remembered() {
    for (script, network) in [
        ("no-such-program-at-all; exit 1", false),
        ("echo 'curl: (6) Could not resolve host: example.org'; exit 6", true),
        ("echo 'wget: unable to resolve host address a.org'; exit 4", true),
        // The failed download appears only later, as a missing file.
        (
            "echo 'Network is unreachable'; echo 'x.c:1:1: fatal error: fw.h: No such file or directory'; exit 1",
            true,
        ),
        ("echo 'sh: 1: Cannot fork'; exit 2", false),
    ] {
        let mut fixture = Fixture::new();
        module(&fixture, script);
        let failed = failure(&fixture.install());
        assert!(failed.transient && names_network(&failed) == network, "{script}: {failed:?}");
        assert!(!is_remembered(&fixture), "{script}");
        assert!(fixture.root.exists("var/lib/dkms/foo/1.0/build/make.log"), "{script}");
        let log = std::fs::read_to_string(failed.log.unwrap()).unwrap();
        assert!(log.contains("# exit code: "), "{log}");
    }
    let mut fixture = Fixture::new();
    module(&fixture, "echo 'Network is unreachable'; echo 'x.c:1:1: error: new kernel'; exit 1");
    let failed = failure(&fixture.install());
    assert!(!failed.transient && !names_network(&failed), "{failed:?}");
}

#[test]
fn log_stays_after_each_failure_until_a_build_succeeds() {
    for without_privileges in [false, true] {
        let mut fixture = Fixture::new();
        fixture.without_privileges = without_privileges;
        module(
            &fixture,
            "touch left-over; [ -e $ROOT/ok ] || no-such-program || exit 1\n\
             make -C $ROOT/usr/lib/modules/$kernelver/build M=$PWD",
        );
        let failed = failure(&fixture.install());
        assert!(failed.transient, "{failed:?}");
        assert!(fixture.root.exists("var/lib/dkms/foo/1.0/build/left-over"));
        assert!(fixture.root.exists("var/lib/dkms/foo/1.0/build/make.log"), "{}", fixture.tree());
        fixture.root.write("ok", "");
        assert_clean(&fixture.install());
        assert!(!fixture.root.exists("var/lib/dkms/foo/1.0/build"), "{}", fixture.tree());
    }
}

/// Mounts a tmpfs with `options` at `at`, and unmounts it when dropped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(at: &Path, options: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let env = Environment::fixed();
        let mount = Program::new("mount", &env).args(["-t", "tmpfs", "-o", options, "none"]);
        assert!(mount.arg(at).run().unwrap().success());
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Program::new("umount", &Environment::fixed()).arg(&self.0).run();
    }
}

#[test]
#[ignore = "needs root: run make unit"]
fn noexec_and_read_only_mounts_are_named() {
    let mut fixture = Fixture::new();
    fixture.without_privileges = true;
    let (tree, disk) = (fixture.root.at("var/lib/dkms"), fixture.root.at("srv"));
    let _tree = Mounted::new(&tree, "noexec");
    fixture.root.executable("usr/src/foo-1.0/configure", "#!/bin/sh\n");
    module(&fixture, "./configure");
    let failed = failure(&fixture.install());
    assert!(failed.transient && !is_remembered(&fixture), "{failed:?}");
    let mount = tree.display();
    assert!(failed.message.ends_with(&format!(": {mount} is mounted noexec")), "{failed:?}");
    assert_eq!(
        failed.hint.unwrap(),
        format!("run: mount -o remount,exec {mount} && dkms autoinstall")
    );
    // A program without execute permission is the module's own fault.
    module(&fixture, "chmod -x configure; ./configure");
    assert!(!failure(&fixture.command(Verb::Install, "foo/1.0")).transient);
    let _disk = Mounted::new(&disk, "ro");
    module(&fixture, "mkdir $ROOT/srv/new");
    let failed = failure(&fixture.install());
    assert!(failed.transient, "{failed:?}");
    let mount = disk.display();
    assert!(failed.message.ends_with(&format!(": {mount} is mounted read-only")), "{failed:?}");
}

#[test]
fn missing_object_is_reported_with_its_places() {
    for (object, places) in [
        ("out/deep/foo.ko", "found out/deep/foo.ko"),
        ("bar.ko", "found bar.ko"),
        ("x/foo.ko y/foo.ko bar.ko", "found x/foo.ko, y/foo.ko"),
        ("foo.o", "no .ko file was built"),
    ] {
        let mut fixture = Fixture::new();
        module(&fixture, &format!("for o in {object}; do mkdir -p $(dirname $o); touch $o; done"));
        let failed = failure(&fixture.install());
        let dir = fixture.root.at("var/lib/dkms/foo/1.0/build");
        let want = format!("(listed in dkms.conf): expected foo.ko in {}, {places}", dir.display());
        assert!(failed.message.ends_with(&want), "{failed:?}");
    }
}
