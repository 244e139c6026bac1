//! Removes the files that killed runs left behind, before a run starts its own work.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::dkms_tree::{PendingWork, cleanup};
use crate::facts::Facts;
use crate::installing;
use crate::machine::Machine;
use crate::os::durable;

/// Removes the unfinished files of killed runs from all trees. Returns error messages; empty on
/// success.
///
/// Does nothing in a run that another run has started, because the outer run still uses its files.
/// The caller must hold the lock.
pub(super) fn remove_strays(machine: &Machine, facts: &Facts) -> Vec<String> {
    if machine.is_within_run() {
        return Vec::new();
    }
    remove_empty_build_dirs(machine, facts);
    let in_kernels = object_dirs(machine, facts).into_iter().filter(|dir| dir.is_dir());
    let swept = in_kernels.map(|dir| durable::remove_unfinished(&dir));
    let swept = std::iter::once(cleanup::remove_strays(machine)).chain(swept);
    swept.filter_map(|result| result.err().map(|error| error.to_string())).collect()
}

/// Removes the empty build directories of built modules whose installation is pending. A run that
/// only installs leaves them behind.
fn remove_empty_build_dirs(machine: &Machine, facts: &Facts) {
    for work in &facts.pending {
        if let PendingWork::Install { module, kernel } = work
            && machine.trees.built(module, kernel, &machine.arch).is_dir()
        {
            // This succeeds only if the directory is empty.
            let _ = fs::remove_dir(machine.trees.build(module));
        }
    }
}

/// Returns each kernel's directory, and the directories below it in which a run may have placed
/// objects.
fn object_dirs(machine: &Machine, facts: &Facts) -> BTreeSet<PathBuf> {
    let usual = installing::default_location(machine);
    let mut dirs = BTreeSet::new();
    for about in facts.kernels.values() {
        dirs.extend([about.kernel.dir.clone(), about.kernel.dir.join(&usual)]);
    }
    for about in facts.kernels.values() {
        let placed = about.inventory.objects().filter_map(|it| Path::new(&it.path).parent());
        dirs.extend(placed.map(|parent| about.kernel.dir.join(parent)));
    }
    for (kernel, pair) in facts.modules.values().flat_map(|module| &module.pairs) {
        let record = pair.built.as_ref().and_then(|built| built.record.as_ref());
        let Some(record) = record else { continue };
        let dir = machine.trees.kernel(kernel);
        dirs.extend(record.objects.iter().map(|object| dir.join(&object.location)));
    }
    dirs
}
