//! The disk is full: an error says so, the old object stays, and nothing unfinished is left.

use stories::{Root, find};

use crate::fixture::{assert_status, installed, machine, object, release};

/// Moves `tree` to a disk with `spare` KiB left, upgrades bbswitch there, makes room, and lets `finish` finish it.
#[track_caller]
fn upgrade_with_full(tree: &str, spare: u64, finish: impl Fn(&Root)) {
    let root = machine(&[find("bbswitch")]).fork();
    let (object, new) = (object(&release(), "bbswitch"), find("bbswitch-next"));
    root.move_to_full_disk(tree, spare);
    let old = root.bytes(&object);
    root.install(std::slice::from_ref(&new)).hooks_fail().has("free some space");
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
fn not_a_byte_left_in_the_dkms_tree() {
    // Not even a work could be written: the user has to ask.
    upgrade_with_full("var/lib/dkms", 0, |root| {
        root.dkms(&["install", find("bbswitch-next").module(), "-k", &release()]).ok();
    });
}

/// Pending work is finished at boot, and nothing is left of the old version.
fn boot(root: &Root) {
    root.boot_unit().ok();
    assert_status(root, &[installed(find("bbswitch-next").module(), &release())]);
}

#[test]
fn no_room_to_build_in() {
    upgrade_with_full("var/lib/dkms", 64, boot);
}

#[test]
fn no_room_for_the_objects_that_were_built() {
    upgrade_with_full("var/lib/dkms", 512, boot);
}

#[test]
fn no_room_to_place_an_object() {
    upgrade_with_full(&format!("usr/lib/modules/{}", release()), 0, boot);
}
