//! Tests of memory limits, build timeouts and the tokens of killed builds.

use std::fs;

use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::plan::Verb;
use rstest::rstest;

use crate::fixture::{Fixture, K1, assert_clean, id, kernel};

/// Adds a module whose build runs `script` before it compiles. In the script, `$ROOT` is the test
/// root.
fn scripted(fixture: &Fixture, name: &str, script: &str) {
    let root = fixture.root.path().display().to_string();
    fixture
        .root
        .source(name, "1.0")
        .file("before.sh", &format!("ROOT={root}\n{script}\n"))
        .conf_line(&format!(
            "MAKE='sh before.sh && make -C {root}/usr/lib/modules/{K1}/build M=$PWD'"
        ));
}

/// A script that fails in the same way as gcc's driver if the kernel kills the compiler.
const KILLED: &str =
    "echo 'gcc: fatal error: Killed signal terminated program cc1' >&2; kill -9 $$";

#[test]
fn build_that_runs_out_of_memory_is_retried_alone_with_one_job() {
    let mut fixture = Fixture::new();
    fixture.jobs = Some(3);
    // The retry counts the other running builds, and checks that it cannot run two jobs.
    let jobs = "all: a b; a b:; @mkdir $$ROOT/two && sleep 0.3 && rmdir $$ROOT/two";
    scripted(
        &fixture,
        "hungry",
        &format!(
            "export ROOT; [ -e $ROOT/tried ] || {{ touch $ROOT/tried; {KILLED}; }}\n\
             ls $ROOT | grep busy\n\
             printf '{}' | make -f - && ls $ROOT | grep -c busy > $ROOT/beside; true",
            jobs.replace("; ", "\\n").replace(":\\n@", ":\\n\\t@")
        ),
    );
    for name in ["one", "two", "three"] {
        scripted(
            &fixture,
            name,
            &format!("touch $ROOT/busy.{name}; sleep 1; rm $ROOT/busy.{name}"),
        );
    }
    let report = fixture.sync(&["hungry-1.0", "one-1.0", "two-1.0", "three-1.0"], &[]);
    assert_clean(&report);
    assert_eq!(fixture.root.read("beside"), "0\n");
    assert!(fixture.installed(K1, "hungry.ko") && fixture.installed(K1, "three.ko"));
    let said = format!(
        "note: hungry/1.0 for {K1}: out of memory; will be retried alone after the other builds"
    );
    assert_eq!(fixture.output.lines, [said]);
}

#[test]
fn build_that_runs_out_of_memory_twice_stays_pending() {
    let mut fixture = Fixture::new();
    scripted(&fixture, "hungry", &format!("echo x >> $ROOT/tries; {KILLED}"));
    fixture.root.source("foo", "1.0");
    let report = fixture.sync(&["hungry-1.0", "foo-1.0"], &[]);
    assert_eq!(fixture.root.read("tries"), "x\nx\n");
    let failures: Vec<_> = report.failures().collect();
    let [(_, failed)] = failures[..] else { panic!("{failures:?}") };
    assert!(failed.out_of_memory && failed.transient, "{failed:?}");
    let begins = "probably out of memory: make failed (";
    let ends = "; the retry without other builds failed too: add memory or swap";
    assert!(failed.message.starts_with(begins) && failed.message.ends_with(ends), "{failed:?}");
    let cause = "gcc: fatal error: Killed signal terminated program cc1";
    assert_eq!(failed.cause.as_deref(), Some(cause));
    assert!(fixture.installed(K1, "foo.ko"));
    assert!(fixture.root.exists("var/lib/dkms/.pending"), "nothing is pending");
    let pending = PendingList::of(&fixture.machine().trees).read();
    let install = PendingWork::Install { module: id("hungry/1.0"), kernel: kernel(K1) };
    assert!(
        pending.contains(&install) || pending.contains(&PendingWork::Source("hungry-1.0".into())),
        "{pending:?}"
    );
}

#[test]
fn oom_kill_counter_identifies_builds_that_ran_out_of_memory() {
    let mut fixture = Fixture::new();
    // In a PID namespace, only the kernel can kill the first process.
    fixture.without_privileges = true;
    fixture.root.write("proc/vmstat", "oom_kill 3\n");
    // Kill the shell that runs make, so that the log contains no message.
    let kill = "echo 'oom_kill 4' > $ROOT/proc/vmstat; kill -9 $PPID";
    scripted(
        &fixture,
        "hungry",
        &format!("[ -e $ROOT/tried ] || {{ touch $ROOT/tried; {kill}; }}"),
    );
    assert_clean(&fixture.sync(&["hungry-1.0"], &[]));
    assert_eq!(fixture.output.lines.len(), 1, "{:?}", fixture.output.lines);
}

#[test]
fn compiler_error_is_not_retried_despite_an_oom_kill() {
    let mut fixture = Fixture::new();
    fixture.root.write("proc/vmstat", "oom_kill 3\n");
    let wrong = "echo 'oom_kill 4' > $ROOT/proc/vmstat; echo 'x.c:1:1: error: no' >&2; exit 1";
    scripted(&fixture, "wrong", wrong);
    let report = fixture.sync(&["wrong-1.0"], &[]);
    let failed = report.failures().next().unwrap().1;
    assert!(!failed.out_of_memory && !failed.transient, "{failed:?}");
    assert_eq!(fixture.output.lines, [""; 0]);
}

#[test]
fn available_memory_limits_the_number_of_parallel_builds() {
    let mut fixture = Fixture::new();
    fixture.jobs = Some(4);
    fixture.root.write("proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable: 307200 kB\n");
    for name in ["one", "two", "three"] {
        scripted(&fixture, name, "mkdir $ROOT/lock && sleep 0.3 && rmdir $ROOT/lock");
    }
    assert_clean(&fixture.sync(&["one-1.0", "two-1.0", "three-1.0"], &[]));
    let said = "parallel jobs limited to 1 instead of 4: 300 MiB of memory available, \
                256 MiB per job (memory_per_job in /etc/dkms/alpm-dkms.toml)";
    assert_eq!(fixture.output.lines, [said]);
}

#[test]
fn timed_out_build_is_killed_with_its_daemons() {
    let mut fixture = Fixture::new();
    fixture.root.write("etc/dkms/alpm-dkms.toml", "[build]\ntimeout = 3\n");
    let forever = format!("600.{}", std::process::id());
    scripted(
        &fixture,
        "hangs",
        &format!("setsid -f sleep {forever}; sleep {forever} & sleep {forever}"),
    );
    fixture.root.source("foo", "1.0");
    for without_privileges in [false, true] {
        fixture.without_privileges = without_privileges;
        let report = fixture.command(Verb::Install, "hangs/1.0");
        let failed = report.failures().next().unwrap().1;
        let want = "make timed out after 3 s ([build] timeout in /etc/dkms/alpm-dkms.toml)";
        assert_eq!(failed.message, want);
        let lines =
            fs::read_dir("/proc").unwrap().flatten().map(|it| fs::read(it.path().join("cmdline")));
        let mut lines = lines.flatten().map(|line| String::from_utf8_lossy(&line).into_owned());
        assert!(!lines.any(|line| line.contains(&forever)), "a daemon is still running");
    }
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
}

/// Returns a script that writes the number of free tokens in the jobserver, up to `count`, to the
/// file `free`. A smaller number than `count` means that a token was lost.
fn count_tokens(count: usize) -> String {
    let fifo = "\"$ALPM_DKMS_JOBSERVER\"";
    format!(
        "timeout 5 head -c {count} <>{fifo} >$ROOT/tokens; wc -c <$ROOT/tokens >$ROOT/free\n\
         cat $ROOT/tokens >{fifo}"
    )
}

/// The script of a build that takes a token and is killed before it returns it.
const LOSES_A_TOKEN: &str =
    "head -c 1 <>\"$ALPM_DKMS_JOBSERVER\" >/dev/null; touch $ROOT/taken; kill $$";

#[rstest]
#[case::make(|fixture: &Fixture| scripted(fixture, "killed", LOSES_A_TOKEN))]
#[case::script(|fixture: &Fixture| {
    let script = LOSES_A_TOKEN.replace("$ROOT", &fixture.root.path().display().to_string());
    let script = format!("#!/bin/sh\n{script}\n");
    fixture.root.source("killed", "1.0").conf_line("PRE_BUILD=killed.sh");
    fixture.root.executable("usr/src/killed-1.0/killed.sh", &script);
})]
fn jobserver_is_full_again_after_a_killed_build(#[case] add: fn(&Fixture)) {
    let mut fixture = Fixture::new();
    fixture.jobs = Some(4);
    add(&fixture);
    scripted(&fixture, "long", "sleep 3");
    scripted(&fixture, "quick", "until [ -e $ROOT/taken ]; do sleep 0.1; done; sleep 1");
    // This build starts after the build of `quick`, while the build of `long` still runs.
    scripted(&fixture, "counts", &count_tokens(3));
    let conf = "usr/src/counts-1.0/dkms.conf";
    let text = fixture.root.read(conf);
    fixture.root.write(conf, format!("{text}BUILD_DEPENDS[0]=quick\n"));
    let report = fixture.sync(&["killed-1.0", "long-1.0", "quick-1.0", "counts-1.0"], &[]);
    assert_eq!(report.failures().count(), 1, "{report:#?}");
    assert_eq!(fixture.root.read("free"), "3\n");
}

#[test]
fn jobserver_is_full_again_although_the_loss_was_not_noticed() {
    let mut fixture = Fixture::new();
    fixture.jobs = Some(3);
    scripted(&fixture, "first", &format!("sh -c '{LOSES_A_TOKEN}'; true"));
    scripted(&fixture, "second", &count_tokens(2));
    let conf = "usr/src/second-1.0/dkms.conf";
    let text = fixture.root.read(conf);
    fixture.root.write(conf, format!("{text}BUILD_DEPENDS[0]=first\n"));
    assert_clean(&fixture.sync(&["first-1.0", "second-1.0"], &[]));
    assert_eq!(fixture.root.read("free"), "2\n");
}
