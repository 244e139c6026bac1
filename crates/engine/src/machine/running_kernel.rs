//! The kernel that this machine runs.

use std::fs;

use crate::names::KernelRelease;

/// What `uname -r` prints.
pub(crate) fn running_release() -> Option<KernelRelease> {
    fs::read_to_string("/proc/sys/kernel/osrelease").ok()?.trim().parse().ok()
}
