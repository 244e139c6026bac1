//! Which objects are installed, and how.

use testroot::kernel_object;

use super::*;

#[test]
fn older_objects_do_not_take_the_place_of_newer_ones() {
    let mut machine = TestMachine::new();
    machine.root.source("foo", "1.0");
    let own = format!("usr/lib/modules/{K}/kernel/fs/foo.ko");
    machine.root.write(&own, kernel_object(K, "foo", &["version=1.10"]));
    let message = failed(&machine.install(), 6);
    assert!(message.contains("version 1.10 against 1.0"), "{message}");
    machine.change = |machine| machine.options.force_version = true;
    clean(&machine.install());
    // What dkms placed itself is no hindrance; the kernel's own is, but is left alone.
    machine.change = |machine| machine.options.module = "foo/0.9".parse().ok();
    machine.root.remove(&own);
    clean(&machine.command(Verb::Build, "foo/1.0"));
    machine.root.source("foo", "0.9");
    let message = failed(&machine.command(Verb::Install, "foo/0.9"), 6);
    assert!(message.contains("version 1.0 against 0.9"), "{message}");
    // A transaction may bring an older one.
    machine.change = |_| {};
    clean(&machine.command(Verb::Install, "foo/0.9"));
}

#[test]
fn the_same_object_is_not_installed_twice() {
    let mut machine = TestMachine::new();
    machine.root.source("foo", "1.0").objects(&["foo", "baz"]);
    clean(&machine.command(Verb::Build, "foo/1.0"));
    let built = fs::read(machine.root.path().join(format!("{BUILT}/module/foo.ko"))).unwrap();
    machine.root.write(format!("usr/lib/modules/{K}/kernel/fs/foo.ko"), built);
    clean(&machine.install());
    assert!(machine.heard.0[0].contains("foo.ko is not installed: the kernel has the very same"));
    assert!(!machine.root.exists(PLACED));
    assert!(machine.root.exists(PLACED.replace("foo.ko", "baz.ko")));
}

#[test]
fn what_the_kernel_has_itself_by_now_is_not_installed() {
    let mut machine = TestMachine::new();
    let limit = "OBSOLETE_BY=7.2\nBUILD_EXCLUSIVE_KERNEL_MAX=9";
    machine.root.source("foo", "1.0").conf_line(limit);
    let message = failed(&machine.install(), 6);
    assert!(message.contains("OBSOLETE_BY"), "{message}");
    machine.root.write("usr/share/dkms/modules_to_force_install/foo", "bar foo\n");
    clean(&machine.install());
}

#[test]
fn links_can_be_placed_and_removed() {
    let mut machine = TestMachine::new();
    machine.root.source("foo", "1.0");
    machine.change = |machine| machine.settings.framework.symlink_modules = true;
    clean(&machine.install());
    let target = fs::read_link(machine.root.path().join(PLACED)).unwrap();
    assert!(target.ends_with(format!("dkms/foo/1.0/{K}/x86_64/module/foo.ko")), "{target:?}");
    clean(&machine.command(Verb::Remove, "foo/1.0"));
    assert!(!machine.root.path().join(PLACED).is_symlink());
}
