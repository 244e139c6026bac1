//! Detects a chroot.
//!
//! By default, dkms does not sign modules in a chroot: the keys there can belong to another
//! machine, and the modules are not loaded there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::os::process::Environment;

/// Returns true if this process runs in a chroot or works on a `root` other than `/`. `proc` is the
/// directory of the proc file system.
///
/// As in dkms, a process is assumed to run in a chroot if it runs under fakechroot, or if its root
/// directory differs from that of process 1. dkms also compares the mounts of the two processes
/// (dkms-behaviour 6), but they differ in every mount namespace, such as that of a systemd unit
/// with `PrivateTmp`.
pub(super) fn is_chroot(root: &Path, env: &Environment, proc: &Path) -> bool {
    root != Path::new("/") || is_fake(env) || has_other_root(proc, 1)
}

fn is_fake(env: &Environment) -> bool {
    let is_set = |name: &str, fits: &dyn Fn(&str) -> bool| {
        env.get(name).is_some_and(|value| fits(&value.to_string_lossy()))
    };
    is_set("FAKECHROOT", &|value| value == "true")
        || is_set("FAKECHROOT_BASE", &|_| true)
        || is_set("LD_PRELOAD", &|value| value.contains("libfakechroot.so"))
}

/// Returns true if the process `pid` and this process have different root directories. `proc` is
/// the directory of the proc file system.
///
/// Some machines do not allow even root to read the root directory of another process. In that
/// case, compares the mounts on the two root directories. If the mount of the process `pid` cannot
/// be read, returns false.
#[must_use]
pub fn has_other_root(proc: &Path, pid: u32) -> bool {
    let inode = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let process = proc.join(pid.to_string());
    if let Some(other) = inode(&process.join("root/.")) {
        return inode(Path::new("/")).is_some_and(|own| own != other);
    }
    let other = root_mount(&process.join("mountinfo"));
    other.is_some() && root_mount(&proc.join("self/mountinfo")) != other
}

/// Reads a list of mounts (proc_pid_mountinfo(5)). Returns the device that is mounted on `/`, and
/// the directory of that device. Returns `None` if nothing is mounted on `/`, as in a chroot in an
/// ordinary directory.
fn root_mount(list: &Path) -> Option<(String, String)> {
    let text = fs::read_to_string(list).ok()?;
    let mut mounts = text.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let (device, dir, point) = (fields.next()?, fields.next()?, fields.next()?);
        (point == "/").then(|| (device.to_owned(), dir.to_owned()))
    });
    mounts.next_back()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;
    use crate::machine::Machine;

    #[rstest]
    #[case::same_root("/", "/", &[], false)]
    #[case::other_root("/", "/usr", &[], true)]
    #[case::unreadable("/", "/missing", &[], false)]
    #[case::given_root("/mnt", "/", &[], true)]
    #[case::fakechroot("/", "/", &[("FAKECHROOT", "true")], true)]
    #[case::no_fakechroot("/", "/", &[("FAKECHROOT", "false")], false)]
    #[case::fakechroot_base("/", "/", &[("FAKECHROOT_BASE", "/x")], true)]
    #[case::preloaded("/", "/", &[("LD_PRELOAD", "/usr/lib/libfakechroot.so")], true)]
    fn only_another_root_is_a_chroot(
        #[case] root: &str,
        #[case] first: &str,
        #[case] variables: &[(&str, &str)],
        #[case] expected: bool,
    ) {
        let proc = TestRoot::new();
        proc.link("1/root", first);
        // The mounts differ, as in any mount namespace.
        proc.write("1/mountinfo", "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
        proc.write("self/mountinfo", "21 1 8:1 / / ro - ext4 /dev/sda1 rw\n");
        let set = |env: Environment, (name, value): &(&str, &str)| env.with(*name, *value);
        let env = variables.iter().fold(Environment::fixed(), set);
        assert_eq!(is_chroot(root.as_ref(), &env, proc.path()), expected);
    }

    #[rstest]
    #[case::same_mount("21 1 8:1 / / ro - ext4 /dev/sda1 rw\n", false)]
    #[case::other_device("21 1 0:57 / / rw - overlay o rw\n", true)]
    #[case::other_directory("21 1 8:1 /srv/root / rw - ext4 /dev/sda1 rw\n", true)]
    #[case::no_mount("22 1 0:5 / /proc rw - proc proc rw\n", true)]
    fn mounts_tell_if_the_first_root_is_unreadable(#[case] own: &str, #[case] expected: bool) {
        let proc = TestRoot::new();
        proc.write("1/mountinfo", "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
        proc.write("self/mountinfo", own);
        assert_eq!(is_chroot("/".as_ref(), &Environment::fixed(), proc.path()), expected);
    }

    #[test]
    fn machine_decides_once() {
        let root = TestRoot::new();
        let mut machine = Machine::for_hook(root.path());
        assert!(machine.is_chroot());
        machine.trees.root = "/".into();
        assert!(machine.is_chroot());
    }
}
