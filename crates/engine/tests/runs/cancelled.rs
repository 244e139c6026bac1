//! Tests of commands that cancel pending work, and of commands that are refused.

use std::path::{Path, PathBuf};

use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::os::process::{Environment, Program};
use dkms_engine::plan::Verb;
use rstest::rstest;

use crate::fixture::{Fixture, K1, K2, assert_clean, assert_failed, id, kernel, sync};

fn list(fixture: &Fixture) -> PendingList {
    PendingList::of(&fixture.machine().trees)
}

fn install(module: &str, release: &str) -> PendingWork {
    PendingWork::Install { module: id(module), kernel: kernel(release) }
}

fn transaction(sources: &[&str], release: &str) -> PendingWork {
    let sources = sources.iter().map(|dir| (*dir).to_owned()).collect();
    PendingWork::Transaction { sources, kernels: [kernel(release)].into() }
}

/// Returns a fixture with two kernels and two modules, of which foo/1.0 is added.
fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.root.kernel(K2).pkgbase("linux-lts").headers();
    fixture.root.source("foo", "1.0");
    fixture.root.source("bar", "1.0");
    assert_clean(&fixture.command(Verb::Add, "foo/1.0"));
    fixture
}

#[rstest]
#[case::source(vec![PendingWork::Source("foo-1.0".into())], &[])]
#[case::installations(vec![install("foo/1.0", K1), install("foo/1.0", K2)], &[])]
#[case::others(
    vec![PendingWork::Source("bar-1.0".into()), install("foo/1.0", K2), install("bar/1.0", K1)],
    &[PendingWork::Source("bar-1.0".into()), install("bar/1.0", K1)]
)]
#[case::part_of_a_transaction(
    vec![transaction(&["bar-1.0", "foo-1.0"], "7.2.99")],
    &[PendingWork::Source("bar-1.0".into()), PendingWork::Kernel(kernel("7.2.99"))]
)]
fn removal_cancels_the_pending_work_of_the_module(
    #[case] works: Vec<PendingWork>,
    #[case] left: &[PendingWork],
) {
    for is_built in [false, true] {
        let mut fixture = fixture();
        if is_built {
            assert_clean(&fixture.install());
        }
        works.iter().for_each(|work| list(&fixture).write(work).unwrap());
        assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
        assert_eq!(list(&fixture).read(), left);
        assert_clean(&fixture.sync(&[], &[]));
        assert!(!fixture.tree().contains("foo"), "{}", fixture.tree());
        assert!(!fixture.installed(K1, "foo.ko") && !fixture.installed(K2, "foo.ko"));
        assert_eq!(fixture.installed(K1, "bar.ko"), left.len() > 1);
    }
}

#[rstest]
#[case::uninstall(Verb::Uninstall)]
#[case::unbuild(Verb::Unbuild)]
fn command_cancels_the_pending_installation_for_its_kernel(#[case] verb: Verb) {
    for is_built in [false, true] {
        let mut fixture = fixture();
        if is_built {
            assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
        }
        for release in [K1, K2] {
            list(&fixture).write(&install("foo/1.0", release)).unwrap();
        }
        assert_clean(&fixture.command(verb, "foo/1.0"));
        assert_eq!(list(&fixture).read(), [install("foo/1.0", K2)]);
        assert_clean(&fixture.sync(&[], &[]));
        assert!(!fixture.installed(K1, "foo.ko") && fixture.installed(K2, "foo.ko"));
    }
}

/// If the run is killed in the script, the opposite work must not start again.
#[rstest]
#[case::installation(Verb::Uninstall, "POST_REMOVE", "uninstall")]
#[case::uninstallation(Verb::Install, "POST_INSTALL", "install")]
fn command_cancels_the_opposite_pending_work_at_once(
    #[case] verb: Verb,
    #[case] directive: &str,
    #[case] kind: &str,
) {
    let mut fixture = Fixture::new();
    let root = fixture.root.path().display().to_string();
    fixture.script(directive, &format!("ls {root}/var/lib/dkms/.pending >{root}/list"));
    let (module, kernel) = (id("foo/1.0"), kernel(K1));
    let opposite = match verb {
        Verb::Install => PendingWork::Uninstall { module, kernel },
        _ => install("foo/1.0", K1),
    };
    if verb == Verb::Uninstall {
        assert_clean(&fixture.install());
    }
    list(&fixture).write(&opposite).unwrap();
    assert_clean(&fixture.command(verb, "foo/1.0"));
    let entries = fixture.root.read("list");
    let kinds: Vec<&str> = entries.lines().filter_map(|name| name.split('-').next()).collect();
    assert_eq!(kinds, [kind], "{entries}");
}

#[rstest]
#[case::installed(Verb::Install)]
#[case::added(Verb::Add)]
fn later_command_cancels_an_interrupted_removal(#[case] verb: Verb) {
    let mut fixture = fixture();
    if verb == Verb::Add {
        assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    }
    list(&fixture).write(&PendingWork::Remove(id("foo/1.0"))).unwrap();
    assert_clean(&fixture.command(verb, "foo/1.0"));
    assert_clean(&fixture.sync(&[], &[]));
    assert!(fixture.root.exists("var/lib/dkms/foo/1.0/source"), "{}", fixture.tree());
}

/// A directory that is mounted on itself, read-only, until this value is dropped.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn new(dir: &Path) -> Self {
        for options in ["bind", "remount,bind,ro"] {
            let env = Environment::fixed();
            let mount = Program::new("mount", &env).args(["-o", options]).arg(dir).arg(dir);
            assert!(mount.run().unwrap().success());
        }
        Self(dir.to_owned())
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Program::new("umount", &Environment::fixed()).arg(&self.0).run();
    }
}

#[test]
#[ignore = "needs root: run make unit"]
fn failed_removal_stays_pending() {
    let mut fixture = fixture();
    let removal = PendingWork::Remove(id("foo/1.0"));
    list(&fixture).write(&removal).unwrap();
    let read_only = ReadOnly::new(&fixture.root.at("var/lib/dkms/foo/1.0"));
    assert_failed(&fixture.sync(&[], &[]), 1);
    assert_eq!(list(&fixture).read(), [removal]);
    drop(read_only);
    assert_clean(&fixture.sync(&[], &[]));
    assert_eq!(list(&fixture).read(), []);
    assert!(!fixture.root.exists("var/lib/dkms/foo"), "{}", fixture.tree());
}

#[test]
#[ignore = "needs root: run make unit"]
fn source_that_cannot_be_added_stays_pending() {
    let mut fixture = fixture();
    fixture.root.dir("var/lib/dkms/bar");
    let read_only = ReadOnly::new(&fixture.root.at("var/lib/dkms/bar"));
    assert_failed(&fixture.sync(&["bar-1.0"], &[]), 1);
    assert!(list(&fixture).read().contains(&PendingWork::Source("bar-1.0".into())));
    drop(read_only);
    assert_clean(&fixture.sync(&[], &[]));
    assert!(fixture.installed(K1, "bar.ko") && list(&fixture).read().is_empty());
}

#[rstest]
#[ignore = "needs root: run make unit"]
fn refused_command_leaves_nothing_pending(
    #[values(Verb::Install, Verb::Uninstall, Verb::Unbuild, Verb::Remove)] verb: Verb,
    #[values("usr/lib/modules", "usr/lib/modules/7.2.12-arch1-1/updates/dkms")] dir: &str,
) {
    let mut fixture = Fixture::new();
    fixture.change = |machine| machine.images = true;
    fixture.root.source("foo", "1.0");
    let module = if verb == Verb::Install { "bar/1.0" } else { "foo/1.0" };
    assert_clean(&fixture.install());
    fixture.root.source("bar", "1.0");
    list(&fixture).read().iter().for_each(|work| list(&fixture).clear(work).unwrap());
    let read_only = ReadOnly::new(&fixture.root.at(dir));
    let report = fixture.command(verb, module);
    assert!(report.exit_code() != 0);
    assert_eq!(list(&fixture).read(), [], "{verb:?}");
    drop(read_only);
    let plan = fixture.plan(&sync(&[], &[]));
    assert!(plan.is_empty() && plan.notes.is_empty(), "{plan}");
    assert!(fixture.installed(K1, "foo.ko") && !fixture.installed(K1, "bar.ko"));
    // The refused command has changed nothing, so it works now.
    assert_clean(&fixture.command(verb, module));
}
