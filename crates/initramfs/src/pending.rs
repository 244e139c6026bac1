//! What is owed to a kernel's images, and which of our modules the kernel has.

use std::collections::{BTreeMap, BTreeSet};

use dkms_engine::dkms_tree::{
    Added, BuiltFor, KnownFailure, PendingList, PendingWork, Record, TreeState,
};
use dkms_engine::machine::Machine;
use dkms_engine::names::{KernelRelease, ModuleName};
use dkms_engine::objects::ObjectName;
use dkms_engine::os::digest::Digest;

use crate::image::kmod_name::KmodName;

/// Kernels whose objects changed since their images were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owed {
    pending: BTreeMap<KernelRelease, Vec<PendingWork>>,
}

impl Owed {
    /// Reads the pending.
    #[must_use]
    pub fn read(machine: &Machine) -> Self {
        let mut owed = Self::default();
        for work in PendingList::of(&machine.trees).read() {
            if let PendingWork::Image { kernel, .. } = &work {
                owed.pending.entry(kernel.clone()).or_default().push(work);
            }
        }
        owed
    }

    /// The kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &KernelRelease> {
        self.pending.keys()
    }

    /// Whether something is owed to a kernel.
    #[must_use]
    pub fn is_to(&self, kernel: &KernelRelease) -> bool {
        self.pending.contains_key(kernel)
    }

    /// Whether nothing is owed to any kernel.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The kernel modules that were placed, replaced or taken away for one of them.
    #[must_use]
    pub fn changed(&self, kernel: &KernelRelease) -> BTreeSet<KmodName> {
        let pending = self.pending.get(kernel).into_iter().flatten();
        let objects = pending.filter_map(|work| match work {
            PendingWork::Image { objects, .. } => Some(objects),
            _ => None,
        });
        objects.flatten().map(|name| KmodName::new(name)).collect()
    }

    /// Notes that nothing is owed to a kernel's images any more. What cannot be noted is told in the log, and looked at
    /// again by the next run.
    pub fn clear(&self, machine: &Machine, kernel: &KernelRelease) {
        for work in self.pending.get(kernel).into_iter().flatten() {
            if let Err(error) = PendingList::of(&machine.trees).clear(work) {
                log::warn!("{error}");
            }
        }
    }
}

/// What a kernel has of our modules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ours {
    /// The objects that stand in its directory.
    pub placed: BTreeSet<KmodName>,
    /// The objects that it should have and has not, each with its module: that one did not build.
    pub failed: BTreeMap<KmodName, ModuleName>,
    /// How many modules are installed.
    pub modules: usize,
    /// Where each of its objects stands, with the digest of its content.
    objects: BTreeSet<String>,
}

impl Ours {
    /// Reads the records.
    #[must_use]
    pub fn read(machine: &Machine, kernel: &KernelRelease) -> Self {
        let (trees, arch) = (&machine.trees, &machine.arch);
        let mut ours = Self::default();
        let mut objects: BTreeMap<&ModuleName, BTreeSet<KmodName>> = BTreeMap::new();
        let state = TreeState::read(trees);
        for added in &state.modules {
            for built in &added.kernels {
                let record =
                    Record::read(&Record::path(trees, &added.id, &built.kernel, &built.arch));
                let here = built.kernel == *kernel && built.arch == *arch && built.installed;
                let names: BTreeSet<KmodName> = match &record {
                    Some(record) => names(record.objects.iter().map(|object| object.name.as_str())),
                    None => in_module_dir(machine, added, built),
                };
                if here {
                    ours.placed.extend(names.iter().cloned());
                    ours.modules += 1;
                    let placed = record.iter().flat_map(|record| &record.placed);
                    ours.objects.extend(placed.map(|it| format!("{} {}", it.path, it.digest)));
                }
                objects.entry(&added.id.name).or_default().extend(names);
            }
        }
        for added in &state.modules {
            let name = &added.id.name;
            let has_failed =
                KnownFailure::read(&KnownFailure::path(trees, &added.id, kernel, arch)).is_some();
            if has_failed && state.installed_version(name, kernel, arch).is_none() {
                // Never built before: its object is likely to be named as it is.
                let guess = || BTreeSet::from([KmodName::new(name.as_str())]);
                let names = objects.get(name).cloned().unwrap_or_else(guess);
                ours.failed.extend(names.into_iter().map(|object| (object, name.clone())));
            }
        }
        ours
    }

    /// Tells whether the same objects stand there as at another time.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let objects: Vec<&str> = self.objects.iter().map(String::as_str).collect();
        Digest::of_bytes(objects.join("\n").as_bytes())
    }
}

fn names<'a>(files: impl Iterator<Item = &'a str>) -> BTreeSet<KmodName> {
    files.filter_map(|file| Some(KmodName::new(&ObjectName::parse(file)?.module))).collect()
}

/// The objects of a build that dkms made.
fn in_module_dir(machine: &Machine, added: &Added, built: &BuiltFor) -> BTreeSet<KmodName> {
    let dir = machine.trees.built(&added.id, &built.kernel, &built.arch).join("module");
    let entries = dir.read_dir().into_iter().flatten().flatten();
    let files: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names(files.iter().map(String::as_str))
}
