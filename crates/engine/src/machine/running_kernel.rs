//! The release of the running kernel.

use std::fs;

use crate::names::KernelRelease;

/// Returns the release of the running kernel, as printed by `uname -r`. Returns `None` if it cannot
/// be read or is invalid.
#[must_use]
pub fn running_release() -> Option<KernelRelease> {
    fs::read_to_string("/proc/sys/kernel/osrelease").ok()?.trim().parse().ok()
}
