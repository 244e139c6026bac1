//! Tests of installation on distributions other than Arch.

use dkms_engine::plan::Verb;

use crate::fixture::{BUILT, Fixture, K1, assert_clean};

/// A machine with Red Hat's `weak-modules`, which records its calls in the file `called`, and with
/// the source of foo/1.0, whose dkms.conf contains `line`.
fn red_hat(line: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.root.write("etc/os-release", "ID=rhel\n");
    fixture.root.source("foo", "1.0").conf_line(line);
    fixture.root.executable(
        "usr/sbin/weak-modules",
        "#!/bin/sh\n{ echo \"$*\"; cat; } >>\"${0%/usr/*}/called\"\n",
    );
    fixture
}

#[test]
fn weak_modules_is_called_with_the_objects_on_red_hat() {
    let mut fixture = red_hat("");
    assert_clean(&fixture.install());
    assert_clean(&fixture.command(Verb::Uninstall, "foo/1.0"));
    let root = fixture.root.path().display().to_string();
    let called = fixture.root.read("called").replace(&root, "");
    let object = format!("/usr/lib/modules/{K1}/extra/foo.ko\n");
    assert_eq!(
        called,
        format!("--no-initramfs --add-modules\n{object}--no-initramfs --remove-modules\n{object}")
    );
}

#[test]
fn weak_modules_is_not_called_if_the_module_forbids_it() {
    let mut fixture = red_hat("NO_WEAK_MODULES=Yes");
    assert_clean(&fixture.install());
    assert_clean(&fixture.command(Verb::Uninstall, "foo/1.0"));
    assert!(!fixture.root.exists("called"));
}

#[test]
fn objects_at_the_location_in_dkms_conf_are_adopted() {
    let mut fixture = Fixture::new();
    fixture.root.write("etc/os-release", "ID=alpine\n");
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.install());
    // Without its record, the build looks like one that dkms made.
    fixture.root.remove(format!("{BUILT}/alpm-dkms.toml"));
    assert_clean(&fixture.sync(&[], &[K1]));
    let record = fixture.root.read(format!("{BUILT}/alpm-dkms.toml"));
    assert!(record.contains("location = \"kernel/drivers/misc\""), "{record}");
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert!(!fixture.root.exists(format!("usr/lib/modules/{K1}/kernel/drivers/misc")));
}

#[test]
fn addon_modules_dir_overrides_the_default_location() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.change =
        |machine| machine.env = machine.env.clone().with("ADDON_MODULES_DIR", "addon/x");
    assert_clean(&fixture.install());
    assert!(fixture.root.exists(format!("usr/lib/modules/{K1}/addon/x/foo.ko")));
}
