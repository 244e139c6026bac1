//! Reads mount tables in the format of fstab(5): `/etc/fstab` and `/proc/self/mounts`.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A row of a mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// The mount point. For swap space, this is not a path.
    dir: PathBuf,
    /// The type of the file system.
    kind: String,
}

/// Returns the types of the root file system: the mounted one, and the one in fstab.
pub(crate) fn root_kinds(root: &Path) -> Vec<String> {
    let tables = [mounted(root), in_fstab(root)];
    // If several file systems are mounted on `/`, only the last one is visible.
    let of_root = |table: Vec<Mount>| table.into_iter().rfind(|it| it.dir == Path::new("/"));
    tables.into_iter().flatten().filter_map(of_root).map(|it| it.kind).collect()
}

/// Returns the mount point of a file system that contains `path` and is in fstab but not mounted.
///
/// `path` is a path on the machine at `root`. Files written there would be hidden when the file
/// system is mounted. Returns `None` if the mounted file systems cannot be read.
pub(crate) fn unmounted_above(root: &Path, path: &Path) -> Option<PathBuf> {
    let mounted = mounted(root)?;
    let missing = in_fstab(root)?.into_iter().filter(|it| it.dir != Path::new("/"));
    let mut missing = missing.filter(|it| mounted.iter().all(|mounted| mounted.dir != it.dir));
    missing.find(|it| path.starts_with(&it.dir)).map(|it| it.dir)
}

fn mounted(root: &Path) -> Option<Vec<Mount>> {
    fs::read_to_string(root.join("proc/self/mounts")).ok().map(|text| rows(&text))
}

fn in_fstab(root: &Path) -> Option<Vec<Mount>> {
    fs::read_to_string(root.join("etc/fstab")).ok().map(|text| rows(&text))
}

fn rows(table: &str) -> Vec<Mount> {
    let lines = table.lines().filter(|line| !line.trim_start().starts_with('#'));
    let row = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        Some(Mount { dir: unescaped(fields.next()?), kind: fields.next()?.to_owned() })
    };
    lines.filter_map(row).collect()
}

/// Returns the path in a field, in which `\040` stands for a space (fstab(5)).
fn unescaped(field: &str) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), field.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
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
