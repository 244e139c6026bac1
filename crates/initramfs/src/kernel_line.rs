//! The final line of output for a kernel: its installed and missing modules, and the images that
//! contain installed modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use dkms_engine::names::ModuleName;

use crate::assess::KernelAssessment;
use crate::decide::CurrentImage;
use crate::image::KmodName;

/// Returns the final line of output for a kernel, such as `7.2.13-arch1-1 (linux): 4 modules
/// installed, zfs in /boot/initramfs-linux.img`. If an image is outdated or a module failed to
/// build, the line ends with the command that fixes it.
pub(crate) fn kernel_line(kernel: &KernelAssessment) -> String {
    let count = kernel.modules.installed;
    let plural = if count == 1 { "" } else { "s" };
    let mut line = format!("{}: {count} module{plural} installed", kernel.name());
    let mut images_by_modules: BTreeMap<Vec<&str>, Vec<String>> = BTreeMap::new();
    let mut outdated = Vec::new();
    for it in &kernel.images {
        let path = it.image.path.display().to_string();
        if it.is_outdated {
            outdated.push(path);
        } else if let CurrentImage::Holds(contents) = &it.current {
            let held = kernel.modules.placed.iter().filter(|name| contents.modules.contains(*name));
            let held: Vec<&str> = held.map(KmodName::as_str).collect();
            if !held.is_empty() {
                images_by_modules.entry(held).or_default().push(path);
            }
        }
    }
    for (held, images) in images_by_modules {
        let _ = write!(line, ", {} in {}", held.join(" "), images.join(" and "));
    }
    if !outdated.is_empty() {
        let _ = write!(line, "; outdated: {}; run: dkms initramfs", outdated.join(", "));
    }
    let failed: BTreeSet<&str> = kernel.modules.failed.values().map(ModuleName::as_str).collect();
    if !failed.is_empty() {
        let modules = failed.into_iter().collect::<Vec<_>>().join(", ");
        let release = &kernel.kernel.release;
        let _ = write!(line, "; missing: {modules}; run: dkms autoinstall -k {release}");
    }
    line
}
