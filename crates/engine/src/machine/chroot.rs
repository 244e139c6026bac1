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
/// directory differs from that of process 1. dkms also compares their mounts (dkms-behaviour 6).
/// Those differ in every mount namespace, such as that of a systemd unit with `PrivateTmp`.
pub(super) fn is_chroot(root: &Path, env: &Environment, proc: &Path) -> bool {
    root != Path::new("/") || is_fake(env) || has_other_root(proc)
}

fn is_fake(env: &Environment) -> bool {
    let is_set = |name: &str, fits: &dyn Fn(&str) -> bool| {
        env.get(name).is_some_and(|value| fits(&value.to_string_lossy()))
    };
    is_set("FAKECHROOT", &|value| value == "true")
        || is_set("FAKECHROOT_BASE", &|_| true)
        || is_set("LD_PRELOAD", &|value| value.contains("libfakechroot.so"))
}

/// Without root privileges, the root directory of process 1 cannot be read, and counts as equal.
fn has_other_root(proc: &Path) -> bool {
    let inode = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    match (inode(&proc.join("1/root/.")), inode(Path::new("/"))) {
        (Some(first), Some(own)) => first != own,
        _ => false,
    }
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
    #[test]
    fn machine_decides_once() {
        let root = TestRoot::new();
        let mut machine = Machine::for_hook(root.path());
        assert!(machine.is_chroot());
        machine.trees.root = "/".into();
        assert!(machine.is_chroot());
    }
}
