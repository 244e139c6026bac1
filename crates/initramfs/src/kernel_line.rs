//! The last word on a kernel: what it has, in which images, and what it lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use dkms_engine::names::ModuleName;

use crate::assess::Account;
use crate::decide::Now;
use crate::image::kmod_name::KmodName;

/// One line: `7.2.13-arch1-1 (linux): 4 modules installed, zfs in /boot/initramfs-linux.img`; of a module that did not
/// build, with the command that mends it.
pub(crate) fn verdict(account: &Account) -> String {
    let count = account.ours.modules;
    let plural = if count == 1 { "" } else { "s" };
    let mut line = format!("{}: {count} module{plural} installed", account.name());
    let mut holding: BTreeMap<Vec<&str>, Vec<String>> = BTreeMap::new();
    let mut behind = Vec::new();
    for seen in &account.images {
        let path = seen.image.path.display().to_string();
        if seen.is_behind {
            behind.push(path);
        } else if let Now::Holds(contents) = &seen.now {
            let held = account.ours.placed.iter().filter(|name| contents.modules.contains(*name));
            let held: Vec<&str> = held.map(KmodName::as_str).collect();
            if !held.is_empty() {
                holding.entry(held).or_default().push(path);
            }
        }
    }
    for (held, images) in holding {
        let _ = write!(line, ", {} in {}", held.join(" "), images.join(" and "));
    }
    if !behind.is_empty() {
        let _ = write!(line, "; not up to date: {}: dkms initramfs", behind.join(", "));
    }
    let failed: BTreeSet<&str> = account.ours.failed.values().map(ModuleName::as_str).collect();
    if !failed.is_empty() {
        let modules = failed.into_iter().collect::<Vec<_>>().join(", ");
        let release = &account.kernel.release;
        let _ = write!(line, "; it lacks {modules}: dkms autoinstall -k {release}");
    }
    line
}
