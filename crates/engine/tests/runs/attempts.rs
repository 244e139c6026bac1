//! Tests that pending work is not repeated forever: attempts are counted, and when they are used
//! up, the work is parked, so that hooks and the boot unit no longer repeat it.

use std::fs;

use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::plan::{Note, Request, Verb};
use rstest::rstest;

use crate::fixture::{Fixture, K1, K2, assert_clean, id, kernel, sync};

const PENDING: &str = "var/lib/dkms/.pending";

/// Adds foo/1.0, whose build runs `script` before it compiles, and counts its builds in `tries`. In
/// the script, `$ROOT` is the test root.
fn add(fixture: &Fixture, script: &str) {
    let root = fixture.root.path().display().to_string();
    fixture
        .root
        .source("foo", "1.0")
        .file("before.sh", &format!("ROOT={root}\n{script}"))
        .conf_line(&format!(
            "MAKE='echo x >> {root}/tries; sh before.sh && make -C {root}/usr/lib/modules/{K1}/build \
             M=$PWD'"
        ));
}

fn tries(fixture: &Fixture) -> usize {
    fixture.root.read("tries").lines().count()
}

fn pending(fixture: &Fixture) -> Vec<PendingWork> {
    PendingList::of(&fixture.machine().trees).read()
}

fn install(release: &str) -> PendingWork {
    PendingWork::Install { module: id("foo/1.0"), kernel: kernel(release) }
}

/// Returns the parked work in the plan of the boot unit.
fn parked(fixture: &Fixture) -> Vec<PendingWork> {
    let notes = fixture.plan(&sync(&[], &[])).notes;
    let parked = notes.into_iter().filter_map(|note| match note {
        Note::Parked(works) => Some(works),
        _ => None,
    });
    parked.flatten().collect()
}

/// A shell command that saves the pending work as a crash of the machine at this point would leave
/// it.
const CRASH: &str = "rm -rf $ROOT/crash; cp -r $ROOT/var/lib/dkms/.pending $ROOT/crash";

/// Restores the pending work that [`CRASH`] has saved.
fn crash(fixture: &Fixture) {
    let _ = fs::remove_dir_all(fixture.root.at(PENDING));
    fs::rename(fixture.root.at("crash"), fixture.root.at(PENDING)).unwrap();
}

#[rstest]
#[case::missing_program("no-such-program-of-test; exit 1")]
#[case::full_disk("echo 'as: x.o: No space left on device' >&2; exit 1")]
#[case::no_network("echo 'curl: (6) Could not resolve host: example.org' >&2; exit 6")]
#[case::no_process("echo 'sh: 1: Cannot fork' >&2; exit 2")]
fn passing_failures_are_tried_three_times(#[case] script: &str) {
    let mut fixture = Fixture::new();
    let script = format!("[ -e $ROOT/mended ] || {{ {script}; }}\n");
    add(&fixture, &script);
    fixture.root.source("bar", "1.0");
    assert!(fixture.sync(&["foo-1.0", "bar-1.0"], &[]).failures().all(|(_, it)| it.transient));
    for number in 2..=3 {
        let pending = pending(&fixture);
        let wanted = [PendingWork::Source("foo-1.0".into()), install(K1)];
        assert!(wanted.iter().all(|work| pending.contains(work)), "{pending:?}");
        assert_eq!(fixture.sync(&[], &[]).failures().count(), 1);
        assert_eq!(tries(&fixture), number);
    }
    // Hooks and the boot unit skip the work, and print one note about it.
    for request in [sync(&[], &[]), sync(&[], &[K1]), sync(&["bar-1.0"], &[])] {
        assert_clean(&fixture.run(&request));
        let plan = fixture.plan(&request).to_string();
        let want = format!("note: foo/1.0 for {K1}: skipped after 3 attempts without success\n  ");
        assert_eq!(plan.matches(&(want + "run: dkms autoinstall\n")).count(), 1, "{plan}");
        assert_eq!(pending(&fixture), [install(K1)], "{request:?}");
    }
    assert_eq!(tries(&fixture), 3);
    // Commands try the work again.
    fixture.run(&Request::Autoinstall { kernels: None, only: false });
    assert_eq!(tries(&fixture), 4);
    fixture.install();
    assert_eq!(tries(&fixture), 5);
    assert_clean(&fixture.sync(&[], &[]));
    assert_eq!(parked(&fixture), [install(K1)]);
    // Reinstalling the module's package triggers another attempt, and so does a change of the
    // source.
    assert_eq!(fixture.sync(&["foo-1.0"], &[]).failures().count(), 1);
    fixture
        .root
        .write("usr/src/foo-1.0/before.sh", fixture.root.read("usr/src/foo-1.0/before.sh") + "#\n");
    assert_eq!(fixture.sync(&[], &[]).failures().count(), 1);
    assert_eq!(tries(&fixture), 7);
    fixture.root.write("mended", "");
    assert_clean(&fixture.sync(&[], &[]));
    assert!(fixture.installed(K1, "foo.ko") && pending(&fixture).is_empty());
    assert!(!fixture.root.listing("var/lib/dkms/.failed").contains("foo"), "{}", fixture.tree());
}

#[rstest]
#[case::missing("quilt-of-test", "")]
#[case::compiler(
    "gcc",
    "echo 'gcc: fatal error: cannot execute cc1: vfork: Cannot allocate memory'"
)]
fn parked_build_is_tried_again_with_another_program(#[case] program: &str, #[case] before: &str) {
    let mut fixture = Fixture::new();
    let broken = format!("{before} >&2; exit 1");
    if !before.is_empty() {
        fixture.root.program(program, &broken);
    }
    add(&fixture, &format!("{program} -v || exit 1\n"));
    fixture.sync(&["foo-1.0"], &[]);
    (0..3).for_each(|_| drop(fixture.sync(&[], &[])));
    assert_eq!(parked(&fixture), [install(K1)]);
    fixture.root.program(program, "exit 0");
    assert_clean(&fixture.sync(&[], &[]));
    assert!(fixture.installed(K1, "foo.ko"));
}

#[test]
fn other_kernel_and_dependents_are_not_parked_with_it() {
    let mut fixture = Fixture::new();
    fixture.root.kernel(K2).pkgbase("linux-lts").headers();
    add(&fixture, &format!("[ $1 = {K2} ] || no-such-program-of-test || exit 1\n"));
    let conf = "usr/src/foo-1.0/dkms.conf";
    let text = fixture.root.read(conf).replace("sh before.sh", "sh before.sh $kernelver");
    fixture.root.write(conf, text.replace(K1, "$kernelver"));
    fixture.root.source("bar", "1.0").conf_line("BUILD_DEPENDS=foo");
    fixture.sync(&["foo-1.0", "bar-1.0"], &[]);
    assert!(fixture.installed(K2, "foo.ko") && fixture.installed(K2, "bar.ko"));
    (0..3).for_each(|_| drop(fixture.sync(&[], &[])));
    assert_eq!(pending(&fixture), [install(K1)]);
    // bar waits for foo, and does not fail itself.
    assert_clean(&fixture.sync(&["bar-1.0"], &[K1]));
    fixture.root.program("no-such-program-of-test", "exit 0");
    assert_clean(&fixture.sync(&["bar-1.0"], &[K1]));
    assert!(fixture.installed(K1, "foo.ko") && fixture.installed(K1, "bar.ko"));
}

#[rstest]
#[case::in_the_build(false)]
#[case::in_a_script(true)]
fn crashes_of_the_machine_end(#[case] in_script: bool) {
    let mut fixture = Fixture::new();
    let crashes = format!("{CRASH}; exit 1\n");
    let root = fixture.root.path().display().to_string();
    if in_script {
        fixture.script("POST_INSTALL", &format!("ROOT={root}; echo x >> $ROOT/tries; {crashes}"));
    } else {
        // If the machine crashes during a build, only the pending work of that build is on disk.
        add(&fixture, &crashes);
    }
    fixture.root.source("bar", "1.0");
    fixture.sync(&["foo-1.0", "bar-1.0"], &[]);
    for number in 1..=3 {
        assert_eq!(tries(&fixture), number);
        crash(&fixture);
        let _ = fs::remove_dir_all(fixture.root.at("var/lib/dkms/.failed"));
        fixture.sync(&[], &[]);
    }
    assert_eq!(tries(&fixture), 3, "the fourth start crashes, too");
    assert!(fixture.installed(K1, "bar.ko"));
    // An installed module needs no more than depmod.
    let want = if in_script { vec![] } else { vec![install(K1)] };
    assert_eq!(pending(&fixture), want);
    fixture.run(&Request::Autoinstall { kernels: None, only: false });
    assert_eq!(tries(&fixture), if in_script { 3 } else { 4 });
}

#[test]
fn crashes_in_post_remove_end() {
    let mut fixture = Fixture::new();
    let root = fixture.root.path().display().to_string();
    fixture.script("POST_REMOVE", &format!("ROOT={root}; echo x >> $ROOT/tries; {CRASH}"));
    assert_clean(&fixture.install());
    assert_clean(&fixture.command(Verb::Uninstall, "foo/1.0"));
    for _ in 0..3 {
        crash(&fixture);
        fixture.sync(&[], &[]);
    }
    assert_eq!(tries(&fixture), 3);
    assert!(!fixture.installed(K1, "foo.ko") && pending(&fixture).is_empty());
}

#[test]
fn attempts_of_another_build_do_not_count() {
    let mut fixture = Fixture::new();
    add(&fixture, "no-such-program-of-test; exit 1\n");
    fixture.sync(&["foo-1.0"], &[]);
    (0..3).for_each(|_| drop(fixture.sync(&[], &[])));
    assert_eq!(parked(&fixture), [install(K1)]);
    // Removing the source of the parked version also clears its pending work.
    fixture.root.remove("usr/src/foo-1.0");
    fixture.root.source("foo", "2.0");
    assert_clean(&fixture.sync(&["foo-1.0", "foo-2.0"], &[]));
    assert!(fixture.installed(K1, "foo.ko") && pending(&fixture).is_empty());
}
