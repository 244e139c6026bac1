//! Finds the mounted file systems and those that should be mounted.

use std::path::{Path, PathBuf};

use dkms_engine::os::mount_table::{self, Mount};

/// Returns the types of the root file system: the type of the mounted one, and the type in fstab.
pub(crate) fn root_kinds(root: &Path) -> Vec<String> {
    let tables = [mounted(root), in_fstab(root)];
    // If several file systems are mounted on `/`, only the last one is visible.
    let of_root = |table: Vec<Mount>| table.into_iter().rfind(|it| it.dir == Path::new("/"));
    tables.into_iter().flatten().filter_map(of_root).map(|it| it.kind).collect()
}

/// Returns the mount point of a file system in fstab that would contain `path` but is not mounted.
///
/// `path` is a path on the machine at `root`. A file written to `path` would be hidden once the
/// file system is mounted. Returns `None` if the mounted file systems cannot be read.
pub(crate) fn unmounted_above(root: &Path, path: &Path) -> Option<PathBuf> {
    let mounted = mounted(root)?;
    let missing = in_fstab(root)?.into_iter().filter(|it| it.dir != Path::new("/"));
    let mut missing = missing.filter(|it| mounted.iter().all(|mounted| mounted.dir != it.dir));
    missing.find(|it| path.starts_with(&it.dir)).map(|it| it.dir)
}

fn mounted(root: &Path) -> Option<Vec<Mount>> {
    mount_table::read(&root.join("proc/self/mounts")).ok()
}

fn in_fstab(root: &Path) -> Option<Vec<Mount>> {
    mount_table::read(&root.join("etc/fstab")).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;

    const FSTAB: &str = "# <device> <dir>\nUUID=1 / ext4 rw 0 1\nUUID=2 /boot/ vfat noauto 0 2\n\
                         UUID=3 none swap defaults 0 0\nUUID=4 /my\\040disk ext4 rw 0 2\n";

    #[rstest]
    #[case::not_mounted("", "/boot/initramfs-linux.img", Some("/boot"))]
    #[case::below("", "/boot/EFI/Linux/arch.efi", Some("/boot"))]
    #[case::mounted("/dev/sda1 /boot vfat rw 0 0\n", "/boot/initramfs-linux.img", None)]
    #[case::automount("systemd-1 /boot autofs rw 0 0\n", "/boot/initramfs-linux.img", None)]
    #[case::elsewhere("", "/efi/EFI/Linux/arch.efi", None)]
    #[case::similar_name("", "/bootstrap/a.img", None)]
    #[case::escaped("", "/my disk/a.img", Some("/my disk"))]
    fn finds_the_file_system_that_is_not_mounted(
        #[case] mounts: &str,
        #[case] path: &str,
        #[case] want: Option<&str>,
    ) {
        let root = TestRoot::new();
        root.write("etc/fstab", FSTAB);
        root.write("proc/self/mounts", format!("/dev/sda2 / ext4 rw 0 0\n{mounts}"));
        let found = unmounted_above(root.path(), Path::new(path));
        assert_eq!(found.as_deref(), want.map(Path::new));
    }

    #[test]
    fn an_unreadable_table_proves_nothing() {
        let root = TestRoot::new();
        root.write("etc/fstab", FSTAB);
        assert_eq!(unmounted_above(root.path(), Path::new("/boot/a.img")), None);
    }

    #[test]
    fn finds_the_types_of_the_root_file_system() {
        let root = TestRoot::new();
        root.write("etc/fstab", FSTAB);
        root.write("proc/self/mounts", "rootfs / rootfs rw 0 0\nrpool/ROOT / zfs rw 0 0\n");
        assert_eq!(root_kinds(root.path()), ["zfs", "ext4"]);
    }
}
