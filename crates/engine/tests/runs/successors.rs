//! Tests of modules that are replaced by modules with other names and the same objects.

use std::fs;

use dkms_engine::plan::Verb;
use dkms_engine::report::Report;
use rstest::rstest;

use crate::fixture::{Fixture, K1, PLACED, assert_clean, sync};

/// The file that POST_REMOVE of foo/1.0 creates.
const REMOVED: &str = "removed";

/// Returns a fixture in which foo/1.0 was installed and its package has been replaced by a package
/// with foo-open/2.0.
fn replaced(conf: &str) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.script("POST_REMOVE", &format!("touch {}\n", fixture.root.at(REMOVED).display()));
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.remove("usr/src/foo-1.0");
    add_successor(&fixture, conf);
    fixture
}

fn add_successor(fixture: &Fixture, conf: &str) {
    fixture.root.source("foo-open", "2.0").objects(&["foo"]).conf_line(conf);
    fixture.root.executable("usr/src/foo-open-2.0/refuse.sh", "#!/bin/sh\nexit 1\n");
}

fn transaction(fixture: &mut Fixture) -> Report {
    fixture.sync(&["foo-1.0", "foo-open-2.0"], &[])
}

/// Returns the modules that are installed.
fn installed(fixture: &Fixture) -> Vec<&'static str> {
    let link = |name: &str| fixture.root.at(format!("var/lib/dkms/{name}/kernel-{K1}-x86_64"));
    ["foo", "foo-open"].into_iter().filter(|name| link(name).is_symlink()).collect()
}

fn placed(fixture: &Fixture) -> Vec<u8> {
    fs::read(fixture.root.at(PLACED)).unwrap()
}

#[test]
fn module_leaves_when_its_successor_is_in_place() {
    let mut fixture = replaced("");
    let before = placed(&fixture);
    assert_clean(&transaction(&mut fixture));
    assert_eq!(installed(&fixture), ["foo-open"]);
    assert!(!fixture.root.exists("var/lib/dkms/foo") && fixture.root.exists(REMOVED));
    assert_ne!(placed(&fixture), before);
}

#[rstest]
#[case::excluded("BUILD_EXCLUSIVE_KERNEL=\"^5\"")]
#[case::not_automatic("AUTOINSTALL=no")]
#[case::does_not_build("MAKE=\"false\"")]
#[case::refuses_to_be_installed("PRE_INSTALL=\"refuse.sh\"")]
fn module_stays_until_its_successor_is_in_place(#[case] hindrance: &str) {
    let mut fixture = replaced(hindrance);
    let before = placed(&fixture);
    for _ in 0..2 {
        transaction(&mut fixture);
        assert_eq!(installed(&fixture), ["foo"]);
        assert_eq!(placed(&fixture), before);
        assert!(!fixture.root.exists(REMOVED));
    }
    add_successor(&fixture, "");
    assert_clean(&fixture.sync(&["foo-open-2.0"], &[]));
    assert_eq!(installed(&fixture), ["foo-open"]);
    assert_ne!(placed(&fixture), before);
    assert!(!fixture.root.exists("var/lib/dkms/foo") && fixture.root.exists(REMOVED));
}

/// The hook's message recommends this command.
#[test]
fn command_installs_the_successor_of_a_module_that_waits_for_it() {
    let mut fixture = replaced("PRE_INSTALL=\"refuse.sh\"");
    transaction(&mut fixture);
    assert_eq!(installed(&fixture), ["foo"]);
    // The new object has the same version and code.
    add_successor(&fixture, "");
    let code = "/* foo 1.0 */\nMODULE_VERSION(\"1.0\");\n";
    fixture.root.write("usr/src/foo-open-2.0/foo.c", code);
    fixture.change = |machine| machine.options.module = "foo-open/2.0".parse().ok();
    assert_clean(&fixture.command(Verb::Install, "foo-open/2.0"));
    fixture.change = |_| {};
    assert_eq!(installed(&fixture), ["foo", "foo-open"]);
    assert_clean(&fixture.run(&sync(&[], &[])));
    assert_eq!(installed(&fixture), ["foo-open"]);
}
