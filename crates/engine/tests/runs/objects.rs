//! Tests of placing objects: conflicts with the objects of the kernel, and symbolic links.

use std::fs;

use dkms_engine::plan::Verb;
use testroot::kernel_object;

use crate::fixture::{BUILT, Fixture, K1, PLACED, assert_clean, assert_failed};

#[test]
fn older_objects_do_not_replace_newer_ones() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    let own = format!("usr/lib/modules/{K1}/kernel/fs/foo.ko");
    fixture.root.write(&own, kernel_object(K1, "foo", &["version=1.10"]));
    let message = assert_failed(&fixture.install(), 6);
    assert!(message.contains("version 1.10, this one has 1.0"), "{message}");
    fixture.change = |machine| machine.options.force_version = true;
    assert_clean(&fixture.install());
    // A command for one module does not replace an installed newer version.
    fixture.change = |machine| machine.options.module = "foo/0.9".parse().ok();
    fixture.root.remove(&own);
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    fixture.root.source("foo", "0.9");
    let message = assert_failed(&fixture.command(Verb::Install, "foo/0.9"), 6);
    assert!(message.contains("version 1.0, this one has 0.9"), "{message}");
    // A transaction may install an older version.
    fixture.change = |_| {};
    assert_clean(&fixture.command(Verb::Install, "foo/0.9"));
}

#[test]
fn object_that_the_kernel_already_ships_is_not_installed() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").objects(&["foo", "baz"]);
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    let built = fs::read(fixture.root.path().join(format!("{BUILT}/module/foo.ko"))).unwrap();
    fixture.root.write(format!("usr/lib/modules/{K1}/kernel/fs/foo.ko"), built);
    assert_clean(&fixture.install());
    assert!(
        fixture.output.lines[0]
            .contains("foo.ko: not installed: the kernel already ships an identical module")
    );
    assert!(!fixture.root.exists(PLACED));
    assert!(fixture.root.exists(PLACED.replace("foo.ko", "baz.ko")));
}

#[test]
fn obsolete_modules_are_not_installed() {
    let mut fixture = Fixture::new();
    let limit = "OBSOLETE_BY=7.2\nBUILD_EXCLUSIVE_KERNEL_MAX=9";
    fixture.root.source("foo", "1.0").conf_line(limit);
    let message = assert_failed(&fixture.install(), 6);
    assert!(message.contains("OBSOLETE_BY"), "{message}");
    fixture.root.write("usr/share/dkms/modules_to_force_install/foo", "bar foo\n");
    assert_clean(&fixture.install());
}

#[test]
fn objects_can_be_installed_as_symlinks() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.change = |machine| machine.settings.framework.symlink_modules = true;
    assert_clean(&fixture.install());
    let target = fs::read_link(fixture.root.path().join(PLACED)).unwrap();
    assert!(target.ends_with(format!("dkms/foo/1.0/{K1}/x86_64/module/foo.ko")), "{target:?}");
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert!(!fixture.root.path().join(PLACED).is_symlink());
}
