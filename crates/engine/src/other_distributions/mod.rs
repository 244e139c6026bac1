//! Support for distributions other than Arch: signing keys, signing programs and weak modules.

mod gentoo;
mod ubuntu;
pub(crate) mod weak_modules;

use std::path::{Path, PathBuf};

use crate::machine::Machine;
use crate::names::KernelRelease;
use crate::os::process::is_program;

pub(crate) use gentoo::portage_keys;
pub(crate) use ubuntu::{SHIM_KEYS, make_shim_keys};

/// Returns the path of the distribution's own program for signing modules. Returns `None` if the
/// distribution uses the program in the kernel's headers.
pub(crate) fn sign_file_elsewhere(machine: &Machine, kernel: &KernelRelease) -> Option<PathBuf> {
    let inside = |path: &str| machine.trees.inside(Path::new(path));
    let release = kernel.as_str();
    if machine.is_any(&["debian"]) {
        let series = release.rsplit_once('.').map_or(release, |(series, _)| series);
        Some(inside(&format!("/usr/lib/linux-kbuild-{series}/scripts/sign-file")))
    } else if machine.is_any(&["ubuntu"]) {
        // PATH contains directories of `/`, not of another root.
        let here = machine.trees.root == Path::new("/");
        let own =
            if here { machine.env.find("kmodsign") } else { Some(inside("/usr/bin/kmodsign")) };
        let headers = inside(&format!("/usr/src/linux-headers-{release}/scripts/sign-file"));
        Some(own.filter(|file| is_program(file)).unwrap_or(headers))
    } else if machine.is_any(&["gentoo"]) {
        Some(inside(&format!("/usr/src/linux-{release}/scripts/sign-file")))
    } else {
        None
    }
}
