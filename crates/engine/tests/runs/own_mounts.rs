//! Tests of the private /tmp and /proc of builds, and of variables that affect their shells.

use std::fs;
use std::process;

use dkms_engine::machine::Machine;
use rstest::rstest;

use crate::fixture::{Fixture, K1, K2, assert_clean};
use crate::parallel_builds::build_script;

/// A name below /tmp and /var/tmp that no other process uses.
fn unique() -> String {
    let nanos = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    format!("alpm-dkms-{}-{nanos}", std::process::id())
}

/// Adds the module foo/1.0, whose PRE_BUILD script is `script`.
fn pre_build(fixture: &Fixture, script: &str) {
    fixture.root.source("foo", "1.0").conf_line("PRE_BUILD=while-building.sh");
    build_script(fixture, "foo", script);
}

#[rstest]
#[case::recreated_directory("/tmp", "rm -rf X; mkdir X || exit 3; echo $kernelver > X/k; f=X/k")]
#[case::lock_file("/var/tmp", "set -C; echo $kernelver > X || exit 3; f=X")]
#[ignore = "needs root: run make unit"]
fn two_builds_of_a_module_share_no_temporary_files(#[case] dir: &str, #[case] script: &str) {
    let mut fixture = Fixture::without_kernels();
    fixture.root.kernel(K1).pkgbase("linux").headers();
    fixture.root.kernel(K2).pkgbase("linux").headers();
    fixture.jobs = Some(2);
    let place = format!("{dir}/{}", unique());
    let meet = format!(
        "echo $kernelver >> $ROOT/tries; touch $ROOT/$kernelver
         for i in {{1..200}}; do [[ -e $ROOT/{K1} && -e $ROOT/{K2} ]] && break; sleep 0.05; done"
    );
    let script = script.replace('X', &place);
    pre_build(&fixture, &format!("{script}; {meet}; [[ $(< $f) == $kernelver ]] || exit 4"));
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(fixture.root.read("tries").lines().count(), 2, "a build was repeated");
    assert!(!fs::exists(&place).unwrap());
    assert!(!fixture.root.exists("var/lib/dkms/.build"));
}

#[test]
#[ignore = "needs root: run make unit"]
fn the_steps_of_a_build_share_their_temporary_files() {
    let mut fixture = Fixture::new();
    let place = format!("/tmp/{}", unique());
    let lines = format!("MAKE=\"test -e {place} && MODULES\"\nPOST_BUILD=\"after.sh\"");
    let modules = format!(
        "make -C {}/usr/lib/modules/$kernelver/build M=$dkms_tree/foo/1.0/build",
        fixture.root.path().display()
    );
    pre_build(&fixture, &format!("mkdir {place}"));
    let conf = fixture.root.read("usr/src/foo-1.0/dkms.conf");
    let conf = format!("{conf}{}\n", lines.replace("MODULES", &modules));
    fixture.root.write("usr/src/foo-1.0/dkms.conf", conf);
    fixture.root.executable("usr/src/foo-1.0/after.sh", &format!("#!/bin/sh\nrmdir {place}\n"));
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(!fs::exists(&place).unwrap());
}

/// Creates a directory outside the test root, for use in a setting.
fn outside() -> tempfile::TempDir {
    tempfile::tempdir_in("/tmp").unwrap()
}

#[rstest]
#[case::temporary_directory(|machine: &mut Machine, dir: &str| {
    machine.env = machine.env.clone().with("TMPDIR", dir);
})]
#[case::flags_of_the_compiler(|machine: &mut Machine, dir: &str| {
    machine.env = machine.env.clone().with("KCFLAGS", format!("-O1 -I{dir}"));
})]
#[case::directive_on_the_command_line(|machine: &mut Machine, dir: &str| {
    machine.options.directives = vec![("PRE_BUILD".into(), format!("while-building.sh {dir}"))];
})]
#[ignore = "needs root: run make unit"]
fn paths_that_the_caller_names_stay_visible(#[case] name: fn(&mut Machine, &str)) {
    let mut fixture = Fixture::new();
    let dir = outside();
    pre_build(&fixture, &format!("touch {}/seen", dir.path().display()));
    let mut machine = fixture.machine();
    name(&mut machine, dir.path().to_str().unwrap());
    assert_clean(&fixture.sync_on(&machine, &["foo-1.0"]));
    assert!(dir.path().join("seen").exists());
}

#[rstest]
#[case::addresses("grep -q . /proc/kallsyms && exit 5")]
#[case::configuration("[[ ! -e /proc/config.gz ]] || zcat /proc/config.gz | grep -q . && exit 5")]
#[ignore = "needs root: run make unit"]
fn facts_about_the_running_kernel_are_hidden_from_builds_for_others(#[case] script: &str) {
    let mut fixture = Fixture::new();
    pre_build(&fixture, &format!("{script}; exit 0"));
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
}

/// A script that reads facts about the running kernel first asks `uname` which kernel that is.
#[rstest]
#[case::reads_no_facts(":", true)]
#[case::reads_addresses("grep x /proc/kallsyms", false)]
#[case::reads_the_configuration("zcat /proc/config.gz", false)]
#[ignore = "needs root: run make unit"]
fn uname_names_the_target_unless_a_script_reads_facts(#[case] script: &str, #[case] want: bool) {
    let mut fixture = Fixture::new();
    pre_build(&fixture, &format!("uname -r >$ROOT/uname; {script}; exit 0"));
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(fixture.root.read("uname").trim() == K1, want);
}

#[test]
#[ignore = "needs root: run make unit"]
fn builds_for_the_running_kernel_see_its_facts() {
    let mut fixture = Fixture::without_kernels();
    let running = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    fixture.root.kernel(running.trim()).pkgbase("linux").headers();
    pre_build(&fixture, "grep -q . /proc/kallsyms");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
}

/// Without its own mounts, a build sees facts about the running kernel. `uname` must then print the
/// running kernel too, as with dkms, so that the build does not mistake these facts for facts about
/// the target kernel.
#[test]
fn without_own_mounts_uname_names_the_running_kernel() {
    let mut fixture = Fixture { without_privileges: true, ..Fixture::new() };
    pre_build(&fixture, &format!("[[ $(uname -r) != {K1} ]]"));
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
}

#[test]
#[ignore = "needs root: run make unit"]
fn a_build_sees_only_its_own_processes() {
    let mut fixture = Fixture::new();
    pre_build(&fixture, "[[ $(< /proc/1/comm) == dkms-confine && $(readlink /proc/self) != 1 ]]");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
}

#[rstest]
#[case::file_for_shells("BASH_ENV", "ROOT/start.sh")]
#[case::function("BASH_FUNC_make%%", "() { exit 7; }")]
#[case::options_of_shells("SHELLOPTS", "noexec")]
fn variables_of_the_caller_do_not_affect_the_shells_of_a_build(
    #[case] name: &str,
    #[case] value: &str,
) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    // The fake make is a bash script too, and may read the file.
    fixture.root.write("start.sh", "[[ $0 != */bash ]] || exit 6\n");
    let value = value.replace("ROOT", fixture.root.path().to_str().unwrap());
    let mut machine = fixture.machine();
    machine.env = machine.env.clone().with(name, value);
    assert_clean(&fixture.sync_on(&machine, &["foo-1.0"]));
    assert!(fixture.installed(K1, "foo.ko"));
}

#[rstest]
#[case::of_pre_build("PRE_BUILD=while-building.sh")]
#[case::of_make("MAKE=\"./while-building.sh; make -C HEADERS M=$dkms_tree/foo/1.0/build\"")]
#[ignore = "needs root: run make unit"]
fn the_log_names_daemons_that_were_ended(#[case] line: &str) {
    let mut fixture = Fixture::new();
    let headers = format!("{}/usr/lib/modules/{K1}/build", fixture.root.path().display());
    fixture.root.source("foo", "1.0").conf_line(&line.replace("HEADERS", &headers));
    build_script(&fixture, "foo", "setsid sleep 600.75 >/dev/null 2>&1 &");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    let log = fixture.root.read(format!("{}/log/make.log", crate::fixture::BUILT));
    assert!(log.contains(": ended its background processes: sleep\n"), "{log}");
}

#[rstest]
#[case::launcher("launcher", "[build]\nlauncher = \"launcher\"\n", 601)]
#[case::compiler("cc", "", 602)]
#[ignore = "needs root: run make unit"]
fn daemons_of_the_compiler_are_ended(
    #[case] program: &str,
    #[case] settings: &str,
    #[case] seconds: u32,
) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.root.write("etc/dkms/alpm-dkms.toml", settings);
    fixture.root.program("cc", "echo a compiler");
    let time = format!("{seconds}.{}", process::id());
    fixture.root.program(program, &format!("setsid sleep {time} >&- 2>&- & echo a compiler"));
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(!fixture.root.calls(program).is_empty());
    let server = format!("sleep\0{time}\0");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = entries.flat_map(|entry| fs::read(entry.path().join("cmdline")));
    assert!(!lines.any(|line| line == server.as_bytes()), "a daemon is still running");
}

#[test]
#[ignore = "needs root: run make unit"]
fn daemons_of_an_installation_script_are_named_to_the_user() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").conf_line("POST_INSTALL=while-building.sh");
    build_script(&fixture, "foo", "nohup sleep 600.75 >/dev/null 2>&1 &");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    let said = fixture.output.lines.join("\n");
    assert!(said.contains(": ended its background processes: sleep"), "{said}");
}
