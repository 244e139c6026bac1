//! The modules that dkms manages for a kernel: the installed ones and those that failed to build.

use std::collections::{BTreeMap, BTreeSet};

use dkms_engine::dkms_tree::{Added, BuiltFor, Inventory, KnownFailure, Record, TreeState};
use dkms_engine::machine::Machine;
use dkms_engine::names::{KernelRelease, ModuleName};
use dkms_engine::objects::ObjectName;
use dkms_engine::os::digest::Digest;

use crate::image::KmodName;

/// The modules that dkms manages for one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ManagedModules {
    /// The kernel modules that dkms has installed.
    pub(crate) placed: BTreeSet<KmodName>,
    /// The kernel modules that are missing, each mapped to the dkms module that failed to build.
    pub(crate) failed: BTreeMap<KmodName, ModuleName>,
    /// The number of installed dkms modules.
    pub(crate) installed: usize,
    /// The path and digest of each installed object, separated by a space.
    objects: BTreeSet<String>,
}

impl ManagedModules {
    /// Reads the modules for `kernel` from the dkms tree.
    pub(crate) fn read(machine: &Machine, kernel: &KernelRelease) -> Self {
        let (trees, arch) = (&machine.trees, &machine.arch);
        let mut modules = Self::default();
        let mut objects: BTreeMap<&ModuleName, BTreeSet<KmodName>> = BTreeMap::new();
        let state = TreeState::read(trees);
        let inventory = Inventory::read(trees, kernel);
        let placed = inventory.on_top();
        modules.objects.extend(placed.map(|it| format!("{} {}", it.path, it.digest)));
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
                    modules.placed.extend(names.iter().cloned());
                    modules.installed += 1;
                    // The inventory does not list objects that dkms or an older alpm-dkms has
                    // placed.
                    let is_listed = inventory.of(&added.id).next().is_some();
                    let built = record.iter().filter(|_| !is_listed).flat_map(|it| &it.objects);
                    modules.objects.extend(built.map(|it| format!("{} {}", it.path(), it.digest)));
                }
                objects.entry(&added.id.name).or_default().extend(names);
            }
        }
        for added in &state.modules {
            let name = &added.id.name;
            let failure = KnownFailure::read(&KnownFailure::path(trees, &added.id, kernel, arch));
            let has_failed = failure.is_some_and(|failure| !failure.transient);
            if has_failed && state.installed_version(name, kernel, arch).is_none() {
                // Without a previous build, assume that the object has the name of the dkms module.
                let guess = || BTreeSet::from([KmodName::new(name.as_str())]);
                let names = objects.get(name).cloned().unwrap_or_else(guess);
                modules.failed.extend(names.into_iter().map(|object| (object, name.clone())));
            }
        }
        modules
    }

    /// Returns a single digest of all installed objects, which changes if any object changes.
    pub(crate) fn digest(&self) -> Digest {
        let objects: Vec<&str> = self.objects.iter().map(String::as_str).collect();
        Digest::of_bytes(objects.join("\n").as_bytes())
    }
}

fn names<'a>(files: impl Iterator<Item = &'a str>) -> BTreeSet<KmodName> {
    files.filter_map(|file| Some(KmodName::new(&ObjectName::parse(file)?.module))).collect()
}

/// Returns the kernel modules in the `module` directory of a build. Builds by the original dkms
/// have no record that lists their modules.
fn in_module_dir(machine: &Machine, added: &Added, built: &BuiltFor) -> BTreeSet<KmodName> {
    let dir = machine.trees.built(&added.id, &built.kernel, &built.arch).join("module");
    let entries = dir.read_dir().into_iter().flatten().flatten();
    let files: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names(files.iter().map(String::as_str))
}
