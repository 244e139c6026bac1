//! Tests of trial runs.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;

use dkms_engine::dkms_tree::BuildCache;
use dkms_engine::machine::{Machine, Trial};
use dkms_engine::plan::Verb;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rstest::rstest;

use crate::fixture::{Fixture, K1, K2, PLACED, assert_clean, id, kernel};
use crate::signing::{SIGN_FILE, sign_with, signature};

fn trial(machine: &mut Machine) {
    machine.trial = Some(Trial::default());
}

/// Returns the modules whose builds are in the cache.
fn cached(fixture: &Fixture) -> Vec<String> {
    let entries = BuildCache::of(&fixture.machine().trees).entries();
    let mut modules: Vec<String> =
        entries.into_iter().map(|entry| entry.module.to_string()).collect();
    modules.sort();
    modules
}

#[test]
fn trial_runs_only_the_scripts_of_builds() {
    let mut fixture = Fixture::new();
    let root = fixture.root.path().display().to_string();
    for directive in
        ["POST_ADD", "PRE_BUILD", "POST_BUILD", "PRE_INSTALL", "POST_INSTALL", "POST_REMOVE"]
    {
        fixture.script(directive, &format!("echo {directive} >>{root}/ran; exit 0"));
    }
    let settings =
        format!("post_transaction='touch {root}/transaction'\nmodprobe_on_install=true\n");
    fixture.root.write("etc/dkms/framework.conf", settings);
    fixture.root.write("etc/dkms/alpm-dkms.toml", "[build]\ntimings = '/timings.html'\n");
    fixture.change = trial;
    assert_clean(&fixture.install());
    assert!(fixture.root.exists(PLACED));
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert_eq!(fixture.root.read("ran"), "PRE_BUILD\nPOST_BUILD\n");
    assert!(!fixture.root.exists("transaction"));
    assert!(!fixture.root.exists("timings.html"));

    fixture.change = |_| {};
    assert_clean(&fixture.install());
    assert!(fixture.root.read("ran").ends_with("POST_INSTALL\n"));
    assert!(fixture.root.exists("transaction") && fixture.root.exists("timings.html"));
}

/// `bar` depends on `foo`, which has the script `directive`. `left_out` lists the builds that the
/// trial does not cache.
#[rstest]
#[case::none("", &[])]
#[case::of_the_build("PRE_BUILD", &[])]
#[case::of_adding("POST_ADD", &["bar/1.0", "baz/1.0", "foo/1.0"])]
#[case::before_installing("PRE_INSTALL", &["bar/1.0", "baz/1.0"])]
#[case::after_installing("POST_INSTALL", &["bar/1.0", "baz/1.0"])]
fn builds_after_a_script_that_was_left_out_are_not_cached(
    #[case] directive: &str,
    #[case] left_out: &[&str],
) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.root.source("bar", "1.0").conf_line("BUILD_DEPENDS=foo");
    fixture.root.source("baz", "1.0").conf_line("BUILD_DEPENDS=bar");
    fixture.root.source("other", "1.0").conf_line("POST_INSTALL=missing.sh");
    if !directive.is_empty() {
        fixture.script(directive, ":");
    }
    let mut machine = fixture.machine();
    trial(&mut machine);
    let sources = ["foo-1.0", "bar-1.0", "baz-1.0", "other-1.0"];
    assert_clean(&fixture.sync_on(&machine, &sources));
    let trial = machine.trial.unwrap();
    let of_builds = ["bar/1.0", "baz/1.0", "foo/1.0", "other/1.0"];
    let is_left_out = |module: &&str| trial.left_out_scripts_of(&id(module), &kernel(K1));
    assert_eq!(of_builds.into_iter().filter(is_left_out).collect::<Vec<_>>(), left_out);
    let expected = of_builds.iter().filter(|module| !left_out.contains(module));
    assert_eq!(cached(&fixture), expected.copied().collect::<Vec<_>>());
}

#[test]
fn reports_failed_builds_that_depend_on_a_left_out_script() {
    let mut fixture = Fixture::new();
    fixture.script("POST_ADD", "echo '#define FOO' >foo.h");
    fixture.script("PRE_BUILD", "cat foo.h");
    fixture.root.source("bar", "1.0").broken();
    let mut machine = fixture.machine();
    trial(&mut machine);
    let report = fixture.sync_on(&machine, &["foo-1.0", "bar-1.0"]);
    assert_eq!(report.failures().count(), 2);
    let trial = machine.trial.unwrap();
    assert!(trial.left_out_scripts_of(&id("foo/1.0"), &kernel(K1)));
    assert!(!trial.left_out_scripts_of(&id("bar/1.0"), &kernel(K1)));
}

#[test]
fn scripts_that_have_already_run_do_not_count_as_left_out() {
    let mut fixture = Fixture::new();
    fixture.script("POST_ADD", ":");
    assert_clean(&fixture.command(Verb::Add, "foo/1.0"));
    let mut machine = fixture.machine();
    trial(&mut machine);
    assert_clean(&fixture.sync_on(&machine, &["foo-1.0"]));
    assert!(!machine.trial.unwrap().left_out_scripts_of(&id("foo/1.0"), &kernel(K1)));
    assert_eq!(cached(&fixture), ["foo/1.0"]);
}

#[test]
fn trial_creates_no_key() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    sign_with(&fixture, SIGN_FILE);
    fixture.change = trial;
    assert_clean(&fixture.install());
    assert_eq!(signature(&fixture), None);
    assert!(!fixture.root.exists("var/lib/dkms/mok.key"));
    assert_eq!(cached(&fixture), [""; 0], "the run after the transaction signs the objects");
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));

    for file in ["mok.key", "mok.pub"] {
        fixture.root.write(format!("var/lib/dkms/{file}"), "a key");
    }
    assert_clean(&fixture.install());
    assert!(signature(&fixture).is_some());
    assert_eq!(cached(&fixture), ["foo/1.0"]);
}

/// The setting of the cache size, and the number of builds that remain in the cache.
#[rstest]
#[case::disabled("[cache]\nsize = 0\n", 0)]
#[case::too_small("[cache]\nsize = 1\n", 0)]
#[case::usual("", 2)]
fn builds_of_a_trial_are_used_whatever_the_size_of_the_cache(
    #[case] settings: &str,
    #[case] left: usize,
) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.root.source("bar", "1.0");
    fixture.root.write("etc/dkms/alpm-dkms.toml", settings);
    let real = fixture.machine();
    let mut scratch = fixture.machine();
    trial(&mut scratch);
    fixture.root.dir("var/lib/dkms/.cache/objects");
    let cache = File::open(fixture.root.at("var/lib/dkms/.cache/objects")).unwrap();
    scratch.trees.build_cache = Some(format!("/proc/self/fd/{}", cache.as_raw_fd()).into());
    fixture.root.dir("srv/scratch");
    scratch.trees.dkms = fixture.root.at("srv/scratch");
    assert_clean(&fixture.sync_on(&scratch, &["foo-1.0", "bar-1.0"]));
    assert_eq!((fixture.builds(), cached(&fixture).len()), (2, 2));

    // Another run does not evict the pinned builds whose modules are not installed yet.
    fixture.root.source("other", "1.0");
    assert_clean(&fixture.command(Verb::Install, "other/1.0"));
    assert_eq!(fixture.builds(), 3);
    assert!(cached(&fixture).starts_with(&["bar/1.0".into(), "foo/1.0".into()]));

    assert_clean(&fixture.sync_on(&real, &["foo-1.0", "bar-1.0"]));
    assert_eq!(fixture.builds(), 3, "a module was compiled again");
    assert!(fixture.installed(K1, "foo.ko") && fixture.installed(K1, "bar.ko"));
    let others = if left == 0 { 0 } else { 1 };
    assert_eq!(cached(&fixture).len(), left + others);
    let entries = BuildCache::of(&real.trees).entries();
    assert!(entries.iter().all(|entry| entry.pinned_until.is_none()));
}

/// Builds foo for [`K1`], and replaces that kernel with [`K2`] and then again with [`K1`].
fn with_returning_kernel(fixture: &mut Fixture) {
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    for (from, to) in [(K1, K2), (K2, K1)] {
        fixture.root.remove(format!("usr/lib/modules/{from}"));
        fixture.root.kernel(to).pkgbase("linux").headers();
        if to == K2 {
            assert_clean(&fixture.sync(&[], &[from, to]));
        }
    }
}

#[test]
fn trial_pins_the_builds_that_it_restores() {
    let mut fixture = Fixture::new();
    with_returning_kernel(&mut fixture);
    fixture.change = trial;
    assert_clean(&fixture.sync(&[], &[K1]));
    assert_eq!(fixture.builds(), 2);
    let entries = BuildCache::of(&fixture.machine().trees).entries();
    let pinned = entries.iter().filter(|entry| entry.pinned_until.is_some());
    assert_eq!(pinned.map(|entry| entry.kernel.as_str()).collect::<Vec<_>>(), [K1]);
}

#[test]
#[ignore = "needs root: run make unit"]
fn builds_are_restored_from_a_read_only_cache() {
    let mut fixture = Fixture::new();
    with_returning_kernel(&mut fixture);
    fixture.change = trial;
    let cache = fixture.root.at("var/lib/dkms/.cache/objects");
    with_read_only(&cache, || assert_clean(&fixture.sync(&[], &[K1])));
    assert_eq!(fixture.builds(), 2, "the module was compiled again");
}

#[test]
#[ignore = "needs root: run make unit"]
fn builds_are_cached_even_if_another_run_links_their_source() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.root.dir("copy");
    let (source, copy) = (fixture.root.at("usr/src/foo-1.0"), fixture.root.at("copy/foo.c"));
    fs::hard_link(source.join("foo.c"), &copy).unwrap();
    // chmod changes the ctime, as a new hard link would.
    fixture.script("PRE_BUILD", &format!("chmod 600 {0} && chmod 644 {0}", copy.display()));
    fixture.change = trial;
    with_read_only(&source, || assert_clean(&fixture.sync(&["foo-1.0"], &[])));
    assert_eq!(cached(&fixture), ["foo/1.0"]);
}

/// Calls `run` while `dir` is mounted read-only.
fn with_read_only(dir: &Path, run: impl FnOnce() + Send) {
    thread::scope(|scope| {
        // The mount disappears with the thread.
        scope.spawn(|| {
            let none = None::<&str>;
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some(dir), dir, none, MsFlags::MS_BIND, none).unwrap();
            let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, dir, none, read_only, none).unwrap();
            File::create(dir.join("new")).unwrap_err();
            run();
        });
    });
}
