//! Finds out whether we run in a chroot, where dkms does not sign unless told to.
//!
//! Its keys may be another machine's, and nothing that is built there is loaded there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::machine::Machine;

/// Returns true if this is a chroot, by dkms's rules: fakechroot, another table of mounts than that
/// of process 1, another root than its. A root that was named on the command line is one, too.
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
        // Only root may read that of process 1.
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
