//! Pending work on images: the kernels whose modules changed since their images were last checked.

use std::collections::{BTreeMap, BTreeSet};

use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::machine::Machine;
use dkms_engine::names::KernelRelease;

use crate::image::KmodName;

/// The kernels with pending images, and the changed modules of each kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PendingImages {
    entries: BTreeMap<KernelRelease, Vec<PendingWork>>,
}

impl PendingImages {
    /// Reads the pending work from the dkms tree.
    #[must_use]
    pub(crate) fn read(machine: &Machine) -> Self {
        let mut pending = Self::default();
        for entry in PendingList::of(&machine.trees).read() {
            if let PendingWork::Image { kernel, .. } = &entry {
                pending.entries.entry(kernel.clone()).or_default().push(entry);
            }
        }
        pending
    }

    /// Returns true if no image is pending.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn kernels(&self) -> impl Iterator<Item = &KernelRelease> {
        self.entries.keys()
    }

    pub(crate) fn contains(&self, kernel: &KernelRelease) -> bool {
        self.entries.contains_key(kernel)
    }

    /// Returns the kernel modules that dkms has installed, replaced or removed for `kernel` since
    /// its images were last checked.
    pub(crate) fn changed_modules(&self, kernel: &KernelRelease) -> BTreeSet<KmodName> {
        let entries = self.entries.get(kernel).into_iter().flatten();
        let objects = entries.filter_map(|entry| match entry {
            PendingWork::Image { objects, .. } => Some(objects),
            _ => None,
        });
        objects.flatten().map(|name| KmodName::new(name)).collect()
    }

    /// Clears the pending work of a kernel. If some work cannot be cleared, logs a warning and
    /// leaves that work pending.
    pub(crate) fn clear(&self, machine: &Machine, kernel: &KernelRelease) {
        for entry in self.entries.get(kernel).into_iter().flatten() {
            if let Err(error) = PendingList::of(&machine.trees).clear(entry) {
                log::warn!("{error}");
            }
        }
    }
}
