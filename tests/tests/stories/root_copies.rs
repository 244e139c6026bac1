//! The copies that stories make of roots: forks, folders, full disks.

use stories::{Root, find};

use crate::fixture::release;

#[test]
fn a_fork_goes_on_by_itself() {
    let root = Root::bare();
    root.install(&[find("linux-1")]);
    let fork = root.fork();
    fork.run("pacman", &["-Q", "linux"]).ok();
    fork.remove(&["linux"]);
    assert_eq!(fork.kernels(), [""; 0]);
    assert_eq!(root.kernels(), [release()]);
    // A fork of a fork sees what both did.
    assert_eq!(fork.fork().kernels(), [""; 0]);
}

#[test]
fn a_folder_is_a_root_but_no_mount_point() {
    let root = Root::ready();
    let folder = root.folder();
    root.run("mountpoint", &[&folder]).exits(32);
    root.run("chroot", &[&folder, "pacman", "-Q", "alpm-dkms"]).ok();
    root.pacman(&["-r", &folder, "-U", &find("linux-1").file]).ok();
    assert!(root.exists(&format!("{folder}/usr/lib/modules/{}/vmlinuz", release())));
    assert_eq!(root.kernels(), [""; 0]);
}

#[test]
fn a_full_disk_has_the_room_it_is_said_to_have() {
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
fn what_is_written_elsewhere_is_seen() {
    let root = Root::ready();
    root.install(&[find("bbswitch")]);
    assert_eq!(root.trespasses(), [""; 0]);
    root.write("etc/evil.conf", "");
    root.write("usr/lib/modules/x", "");
    assert_eq!(root.trespasses(), ["etc/evil.conf"]);
}
