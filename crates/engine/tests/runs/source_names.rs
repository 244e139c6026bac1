//! Tests of the name and version of a module, which its conf and its source directory determine.

use std::collections::BTreeSet;
use std::fs;

use dkms_engine::act;
use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::facts::{self, Scope};
use dkms_engine::names::ModuleId;
use dkms_engine::plan::Verb;
use rstest::rstest;

use crate::fixture::{Fixture, K1, assert_clean, assert_failed, id, kernel};

/// A conf that names its build directory as dkms's documentation suggests.
const MAKE: &str = "MAKE=\"make -C \\$kernel_source_dir \
                    M=${dkms_tree}/${PACKAGE_NAME}/${PACKAGE_VERSION}/build\"";

fn carry_over_except(fixture: &Fixture, named: &BTreeSet<ModuleId>) -> Vec<String> {
    let machine = fixture.machine();
    let facts = facts::read(&machine, &Scope::default());
    act::carry_over_registrations(&machine, &facts, named)
}

fn carry_over(fixture: &Fixture) -> Vec<String> {
    carry_over_except(fixture, &BTreeSet::new())
}

#[rstest]
#[case::release_with_dashes("hid-xpad9", "v0.11-pre-64-g9aa168e")]
#[case::package_release("vboxguest", "4.3.16-1")]
#[case::last_dash("nvidia-open", "595.1")]
#[case::dash_in_both("a-b", "1-2-rc3")]
fn name_and_version_of_the_conf_split_the_directory_name(
    #[case] name: &str,
    #[case] version: &str,
) {
    let mut fixture = Fixture::new();
    fixture.root.source(name, version).conf_line(MAKE);
    assert_clean(&fixture.sync(&[&format!("{name}-{version}")], &[K1]));
    assert!(fixture.root.exists(format!("var/lib/dkms/{name}/{version}/{K1}/x86_64/module")));
    assert!(fixture.installed(K1, &format!("{name}.ko")));
    assert_eq!(carry_over(&fixture), [""; 0]);
    assert_eq!(fixture.sync(&[], &[K1]).finished.len(), 0);
}

#[rstest]
#[case::computed("PACKAGE_NAME=foo; PACKAGE_VERSION=$(cat VERSION)", "foo/1.5-2")]
#[case::other_name("PACKAGE_NAME=ena; PACKAGE_VERSION=1.5-2", "foo-1.5/2")]
#[case::other_version("PACKAGE_NAME=foo; PACKAGE_VERSION=1.5", "foo-1.5/2")]
#[case::for_one_kernel("PACKAGE_NAME=foo; PACKAGE_VERSION=$kernelver", "foo-1.5/2")]
fn last_dash_splits_other_directory_names(#[case] lines: &str, #[case] want: &str) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.5-2").conf_line(lines).file("VERSION", "1.5-2\n");
    assert_clean(&fixture.sync(&["foo-1.5-2"], &[K1]));
    assert!(fixture.root.exists(format!("var/lib/dkms/{want}/{K1}/x86_64/module/foo.ko")));
}

#[test]
fn conf_that_cannot_be_evaluated_fails_under_the_split_at_the_last_dash() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.5-2").conf("exit 3\n");
    assert_failed(&fixture.sync(&["foo-1.5-2"], &[K1]), 8);
    assert!(!fixture.root.exists("var/lib/dkms/foo"));
}

/// Adds the source of foo/1.5-rc1, registered and installed as foo-1.5/rc1.
fn registered_at_last_dash(symlinks: bool) -> Fixture {
    let mut fixture = Fixture::new();
    if symlinks {
        fixture.change = |machine| machine.settings.framework.symlink_modules = true;
    }
    fixture.root.source("foo", "1.5-rc1");
    fixture.root.link("var/lib/dkms/foo-1.5/rc1/source", "/usr/src/foo-1.5-rc1");
    assert_clean(&fixture.command(Verb::Install, "foo-1.5/rc1"));
    assert!(fixture.root.exists(format!("var/lib/dkms/foo-1.5/rc1/{K1}/x86_64/module/foo.ko")));
    fixture
}

#[rstest]
#[case::as_copies(false)]
#[case::as_symlinks(true)]
fn registration_at_the_last_dash_is_carried_over(#[case] symlinks: bool) {
    let mut fixture = registered_at_last_dash(symlinks);
    let builds = fixture.builds();
    assert_eq!(
        carry_over(&fixture),
        ["note: foo-1.5/rc1: renamed to foo/1.5-rc1 to match its dkms.conf"]
    );
    assert!(!fixture.root.exists("var/lib/dkms/foo-1.5"));
    assert_eq!(carry_over(&fixture), [""; 0]);
    if !symlinks {
        assert_eq!(fixture.sync(&["foo-1.5-rc1"], &[K1]).finished.len(), 0);
    }
    assert_eq!(fixture.builds(), builds);
    let placed = fixture.root.at(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko"));
    assert_eq!(placed.is_symlink(), symlinks);
    if symlinks {
        let target = fs::read_link(&placed).unwrap();
        assert!(target.ends_with(format!("foo/1.5-rc1/{K1}/x86_64/module/foo.ko")), "{target:?}");
    }
    assert_clean(&fixture.command(Verb::Uninstall, "foo/1.5-rc1"));
    assert!(!placed.is_symlink() && !placed.exists());
}

#[test]
fn registration_without_a_record_or_a_source_is_carried_over() {
    // A build by dkms, without a record.
    let fixture = registered_at_last_dash(false);
    fixture.root.remove(format!("var/lib/dkms/foo-1.5/rc1/{K1}/x86_64/alpm-dkms.toml"));
    assert_eq!(carry_over(&fixture).len(), 1);
    assert!(fixture.root.exists(format!("var/lib/dkms/foo/1.5-rc1/{K1}/x86_64/module/foo.ko")));
    // The source and the build were removed, and only the kept copy of the source is left.
    let mut fixture = registered_at_last_dash(false);
    fixture.root.remove("usr/src/foo-1.5-rc1");
    fixture.root.remove(format!("var/lib/dkms/foo-1.5/rc1/{K1}"));
    assert_eq!(carry_over(&fixture).len(), 1);
    assert!(fixture.root.exists("var/lib/dkms/foo/1.5-rc1"));
    // A newer version replaces it.
    fixture.root.source("foo", "1.5-rc2");
    assert_clean(&fixture.sync(&["foo-1.5-rc1", "foo-1.5-rc2"], &[K1]));
    assert!(!fixture.root.exists("var/lib/dkms/foo/1.5-rc1"));
    assert!(fixture.installed(K1, "foo.ko"));
}

#[test]
fn failed_and_pending_work_is_carried_over() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.5-rc1").conf_line(MAKE);
    fixture.root.link("var/lib/dkms/foo-1.5/rc1/source", "/usr/src/foo-1.5-rc1");
    assert_failed(&fixture.sync(&["foo-1.5-rc1"], &[K1]), 10);
    let list = PendingList::of(&fixture.machine().trees);
    let install = |module| PendingWork::Install { module: id(module), kernel: kernel(K1) };
    list.write(&install("foo-1.5/rc1")).unwrap();
    assert_eq!(carry_over(&fixture).len(), 1);
    assert!(list.read().contains(&install("foo/1.5-rc1")), "{:?}", list.read());
    assert!(!list.read().contains(&install("foo-1.5/rc1")));
    assert_clean(&fixture.sync(&[], &[]));
    assert!(fixture.installed(K1, "foo.ko"));
}

#[test]
fn registration_is_not_carried_over_against_the_users_will() {
    let fixture = registered_at_last_dash(false);
    let named = [id("foo-1.5/rc1")].into();
    assert_eq!(carry_over_except(&fixture, &named), [""; 0]);
    // The module is also registered under its right name.
    fixture.root.link("var/lib/dkms/foo/1.5-rc1/source", "/usr/src/foo-1.5-rc1");
    assert_eq!(carry_over(&fixture), [""; 0]);
}
