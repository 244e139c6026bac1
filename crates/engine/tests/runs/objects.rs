//! Which objects an installation places, and in which form.

use std::fs;

use dkms_engine::plan::Verb;
use testroot::kernel_object;

use crate::fixture::{BUILT, Fixture, K1, PLACED, clean, failed};

#[test]
fn older_objects_do_not_take_the_place_of_newer_ones() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    let own = format!("usr/lib/modules/{K1}/kernel/fs/foo.ko");
    fixture.root.write(&own, kernel_object(K1, "foo", &["version=1.10"]));
    let message = failed(&fixture.install(), 6);
    assert!(message.contains("version 1.10 against 1.0"), "{message}");
    fixture.change = |machine| machine.options.force_version = true;
    clean(&fixture.install());
    // What dkms placed itself is no hindrance; the kernel's own is, but is left alone.
    fixture.change = |machine| machine.options.module = "foo/0.9".parse().ok();
    fixture.root.remove(&own);
    clean(&fixture.command(Verb::Build, "foo/1.0"));
    fixture.root.source("foo", "0.9");
    let message = failed(&fixture.command(Verb::Install, "foo/0.9"), 6);
    assert!(message.contains("version 1.0 against 0.9"), "{message}");
    // A transaction may bring an older one.
    fixture.change = |_| {};
    clean(&fixture.command(Verb::Install, "foo/0.9"));
}

#[test]
fn the_same_object_is_not_installed_twice() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").objects(&["foo", "baz"]);
    clean(&fixture.command(Verb::Build, "foo/1.0"));
    let built = fs::read(fixture.root.path().join(format!("{BUILT}/module/foo.ko"))).unwrap();
    fixture.root.write(format!("usr/lib/modules/{K1}/kernel/fs/foo.ko"), built);
    clean(&fixture.install());
    assert!(
        fixture.heard.lines[0].contains("foo.ko is not installed: the kernel has the very same")
    );
    assert!(!fixture.root.exists(PLACED));
    assert!(fixture.root.exists(PLACED.replace("foo.ko", "baz.ko")));
}

#[test]
fn what_the_kernel_has_itself_by_now_is_not_installed() {
    let mut fixture = Fixture::new();
    let limit = "OBSOLETE_BY=7.2\nBUILD_EXCLUSIVE_KERNEL_MAX=9";
    fixture.root.source("foo", "1.0").conf_line(limit);
    let message = failed(&fixture.install(), 6);
    assert!(message.contains("OBSOLETE_BY"), "{message}");
    fixture.root.write("usr/share/dkms/modules_to_force_install/foo", "bar foo\n");
    clean(&fixture.install());
}

#[test]
fn links_can_be_placed_and_removed() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.change = |machine| machine.settings.framework.symlink_modules = true;
    clean(&fixture.install());
    let target = fs::read_link(fixture.root.path().join(PLACED)).unwrap();
    assert!(target.ends_with(format!("dkms/foo/1.0/{K1}/x86_64/module/foo.ko")), "{target:?}");
    clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert!(!fixture.root.path().join(PLACED).is_symlink());
}
