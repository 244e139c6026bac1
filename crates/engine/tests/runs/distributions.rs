//! Installation on other distributions than Arch.

use dkms_engine::plan::Verb;

use crate::fixture::{BUILT, Fixture, K1, clean};

#[test]
fn red_hats_weak_modules_hear_of_objects() {
    let mut fixture = Fixture::new();
    fixture.root.write("etc/os-release", "ID=rhel\n");
    fixture.root.source("foo", "1.0");
    fixture.root.executable(
        "usr/sbin/weak-modules",
        "#!/bin/sh\n{ echo \"$*\"; cat; } >>\"${0%/usr/*}/heard\"\n",
    );
    clean(&fixture.install());
    clean(&fixture.command(Verb::Uninstall, "foo/1.0"));
    let root = fixture.root.path().display().to_string();
    let heard = fixture.root.read("heard").replace(&root, "");
    let object = format!("/usr/lib/modules/{K1}/extra/foo.ko\n");
    assert_eq!(
        heard,
        format!("--no-initramfs --add-modules\n{object}--no-initramfs --remove-modules\n{object}")
    );
}

#[test]
fn what_dkms_placed_as_its_conf_says_is_known_there() {
    let mut fixture = Fixture::new();
    fixture.root.write("etc/os-release", "ID=alpine\n");
    fixture.root.source("foo", "1.0");
    clean(&fixture.install());
    // Without our record it is as if dkms had built it.
    fixture.root.remove(format!("{BUILT}/alpm-dkms.toml"));
    clean(&fixture.sync(&[], &[K1]));
    let record = fixture.root.read(format!("{BUILT}/alpm-dkms.toml"));
    assert!(record.contains("kernel/drivers/misc/foo.ko"), "{record}");
    clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert!(!fixture.root.exists(format!("usr/lib/modules/{K1}/kernel/drivers/misc")));
}

#[test]
fn an_addon_directory_is_above_all_distributions() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.change =
        |machine| machine.env = machine.env.clone().with("ADDON_MODULES_DIR", "addon/x");
    clean(&fixture.install());
    assert!(fixture.root.exists(format!("usr/lib/modules/{K1}/addon/x/foo.ko")));
}
