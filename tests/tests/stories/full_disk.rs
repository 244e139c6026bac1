//! The disk is full: an error says so, the old object stays, and nothing unfinished is left.

use stories::{Root, find};

use crate::setting::{assert_status, installed, machine, object, release};

/// The unfinished things that are below a tree.
fn unfinished(root: &Root, tree: &str) -> Vec<String> {
    let mut paths: Vec<String> = root.picture(tree).paths();
    paths.retain(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let temporary = [".tmp", ".new"].iter().any(|part| name.contains(part));
        temporary
            || path.starts_with(".build/")
            || (path.ends_with("/build") && !path.contains("arch1"))
    });
    paths
}

/// Moves `tree` to a disk with some room left, upgrades bbswitch there, makes room, and finishes.
fn upgrade_with_full(tree: &str, spare: u64) {
    let before = machine(&[find("bbswitch")]);
    let (object, new) = (object(&release(), "bbswitch"), find("bbswitch-next"));
    let root = before.fork();
    root.move_to_full_disk(tree, spare);
    let old = root.bytes(&object);
    let output = root.install(std::slice::from_ref(&new));
    let with = format!("with {spare} KiB left in {tree}");
    output.clone().hooks_fail().has("No space left");
    assert_eq!(root.bytes(&object), old, "{with}");
    root.assert_works(&release(), "bbswitch");
    for tree in ["var/lib/dkms", "usr/lib/modules"] {
        assert_eq!(unfinished(&root, tree), [""; 0], "{with}:\n{}", output.text);
    }
    assert_eq!(root.processes(), []);

    root.resize_disk(tree, 1024 * 1024);
    // Where not even a debt could be written, the user has to ask.
    root.dkms(&["install", new.module(), "-k", &release()]).ok();
    root.boot_unit().ok();
    assert_eq!(
        root.modinfo(&release(), "bbswitch", "testbed"),
        new.module().rsplit('/').next().unwrap()
    );
    let newest = installed(new.module(), &release());
    if spare == 0 {
        assert!(root.status().contains(&newest));
    } else {
        assert_status(&root, &[newest]);
        root.assert_settled();
    }
}

#[test]
fn not_a_byte_left_in_the_dkms_tree() {
    upgrade_with_full("var/lib/dkms", 0);
}

#[test]
fn no_room_to_build_in() {
    upgrade_with_full("var/lib/dkms", 64);
}

#[test]
fn no_room_for_the_objects_that_were_built() {
    upgrade_with_full("var/lib/dkms", 512);
}

#[test]
fn no_room_to_place_an_object() {
    upgrade_with_full(&format!("usr/lib/modules/{}", release()), 0);
}
