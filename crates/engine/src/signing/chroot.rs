//! Detects a chroot.
//!
//! By default, dkms does not sign modules in a chroot: the keys there can belong to another
//! machine, and the modules are not loaded there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::machine::Machine;

/// Returns true if this process runs in a chroot or works on a root directory other than `/`.
///
/// As in dkms, a process is assumed to run in a chroot if it runs under fakechroot, or if its
/// mounts or its root directory differ from those of process 1.
pub(super) fn is_chroot(machine: &Machine) -> bool {
    machine.trees.root != Path::new("/")
        || is_fake(machine)
        || has_other_mounts()
        || has_other_root()
}

fn is_fake(machine: &Machine) -> bool {
    let is_set = |name: &str, fits: &dyn Fn(&str) -> bool| {
        machine.env.get(name).is_some_and(|value| fits(&value.to_string_lossy()))
    };
    is_set("FAKECHROOT", &|value| value == "true")
        || is_set("FAKECHROOT_BASE", &|_| true)
        || is_set("LD_PRELOAD", &|value| value.contains("libfakechroot.so"))
}

fn has_other_mounts() -> bool {
    match (fs::read("/proc/1/mountinfo"), fs::read("/proc/self/mountinfo")) {
        (Ok(first), Ok(own)) => first != own,
        // Without root privileges, the mounts of process 1 cannot be read.
        _ => false,
    }
}

fn has_other_root() -> bool {
    let inode = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    match (inode("/proc/1/root/."), inode("/")) {
        (Some(first), Some(own)) => first != own,
        _ => false,
    }
}
