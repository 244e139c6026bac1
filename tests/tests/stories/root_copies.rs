//! The test roots themselves: forks, nested roots and full disks.

use stories::{Root, find};

use crate::fixture::release;

#[test]
fn fork_is_independent() {
    let root = Root::bare();
    root.install(&[find("linux-1")]);
    let fork = root.fork();
    fork.run("pacman", &["-Q", "linux"]).ok();
    fork.remove(&["linux"]);
    assert_eq!(fork.kernels(), [""; 0]);
    assert_eq!(root.kernels(), [release()]);
    // A fork of the fork contains the changes of both.
    assert_eq!(fork.fork().kernels(), [""; 0]);
}

#[test]
fn nested_root_is_not_a_mount_point() {
    let root = Root::ready();
    let nested_root = root.nested_root();
    root.run("mountpoint", &[&nested_root]).exits(32);
    root.run("chroot", &[&nested_root, "pacman", "-Q", "alpm-dkms"]).ok();
    root.pacman(&["-r", &nested_root, "-U", &find("linux-1").file]).ok();
    assert!(root.exists(&format!("{nested_root}/usr/lib/modules/{}/vmlinuz", release())));
    assert_eq!(root.kernels(), [""; 0]);
}

#[test]
fn full_disk_has_the_requested_free_space() {
    let root = Root::bare();
    root.install(&[find("linux-1")]);
    root.move_to_full_disk("usr/lib/modules", 64);
    assert!(root.exists(&format!("usr/lib/modules/{}/vmlinuz", release())));
    root.shell("dd if=/dev/zero of=/usr/lib/modules/a bs=1k count=48").ok();
    root.shell("dd if=/dev/zero of=/usr/lib/modules/b bs=1k count=48").exits(1).has("No space");
    root.resize_disk("usr/lib/modules", 1024 * 1024);
    root.shell("dd if=/dev/zero of=/usr/lib/modules/b bs=1k count=48").ok();
}

#[test]
fn changes_elsewhere_are_detected() {
    let root = Root::ready();
    root.install(&[find("bbswitch")]);
    assert_eq!(root.changes_elsewhere(), [""; 0]);
    root.write("etc/evil.conf", "");
    root.write("usr/lib/modules/x", "");
    assert_eq!(root.changes_elsewhere(), ["etc/evil.conf"]);
}
