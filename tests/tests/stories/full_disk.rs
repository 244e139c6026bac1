//! The disk is full: the error says so, the old object stays, and no temporary files remain.

use stories::{Root, find};

use crate::fixture::{assert_status, installed, machine, object, release};

/// Upgrades bbswitch with `tree` on a disk that has `spare` KiB left, then enlarges the disk and
/// calls `finish`.
#[track_caller]
fn upgrade_with_full(tree: &str, spare: u64, finish: impl Fn(&Root)) {
    let root = machine(&[find("bbswitch")]).fork();
    let (object, new) = (object(&release(), "bbswitch"), find("bbswitch-next"));
    root.move_to_full_disk(tree, spare);
    let old = root.bytes(&object);
    root.install(std::slice::from_ref(&new)).hooks_fail().has("free disk space");
    assert_eq!(root.bytes(&object), old);
    root.assert_works(&release(), "bbswitch");
    root.assert_tidy();

    root.resize_disk(tree, 1024 * 1024);
    finish(&root);
    root.assert_works(&release(), "bbswitch");
    assert_eq!(root.modinfo(&release(), "bbswitch", "testbed"), new.version.trim_end_matches("-1"));
    assert!(root.status().contains(&installed(new.module(), &release())));
    root.assert_settled();
}

#[test]
fn no_space_in_the_dkms_tree() {
    // Pending work could not be recorded either, so the user has to run a command.
    upgrade_with_full("var/lib/dkms", 0, |root| {
        root.dkms(&["install", find("bbswitch-next").module(), "-k", &release()]).ok();
    });
}

/// Runs the boot unit, which finishes the upgrade.
fn boot(root: &Root) {
    root.boot_unit().ok();
    assert_status(root, &[installed(find("bbswitch-next").module(), &release())]);
}

#[test]
fn no_space_to_build() {
    upgrade_with_full("var/lib/dkms", 64, boot);
}

#[test]
fn no_space_for_built_objects() {
    upgrade_with_full("var/lib/dkms", 512, boot);
}

#[test]
fn no_space_to_install_objects() {
    upgrade_with_full(&format!("usr/lib/modules/{}", release()), 0, boot);
}
