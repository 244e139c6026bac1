//! Decides whether to install an object if the kernel's directory already contains one with the
//! same name (dkms-behaviour 5.3).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::dkms_tree::{BuiltObject, RefusedObject};
use crate::installing::BuiltModule;
use crate::machine::Machine;
use crate::names::KernelRelease;
use crate::objects::{ObjectName, read_stored_modinfo};
use crate::os::digest::Digest;
use crate::version;

/// An object that must not be installed.
pub(crate) struct Refused {
    /// The object and the reason.
    pub(crate) object: RefusedObject,
    /// Whether the existing object belongs to another module or version of dkms, not to the kernel.
    pub(crate) by_dkms: bool,
}

/// Returns the built objects of `new` that must not be installed.
///
/// dkms compares each object with the first file that it finds with the same name. This function
/// compares it with the file that modprobe would load. It ignores all files that alpm-dkms
/// installed. If the command line names `new`, it ignores only the files of `new` itself.
///
/// `obsolete_by` is the value of OBSOLETE_BY.
pub(crate) fn refused_objects(new: &BuiltModule<'_>, obsolete_by: Option<&str>) -> Vec<Refused> {
    let BuiltModule { machine, id, kernel, .. } = *new;
    let objects = new.objects();
    if machine.always_installs(&id.name) {
        return Vec::new();
    }
    if let Some(limit) = obsolete_by.filter(|limit| is_obsolete(kernel, limit)) {
        let why = format!("part of the kernel since {limit} (OBSOLETE_BY)");
        let refuse = |object: &BuiltObject| {
            let (name, why) = (object.name.clone(), why.clone());
            Refused { object: RefusedObject { name, by: None, why }, by_dkms: false }
        };
        return objects.iter().map(refuse).collect();
    }
    if machine.ignores_version_of(&id.name) {
        return Vec::new();
    }
    let existing = existing(new);
    let (built, dir) = (new.dir(), machine.trees.kernel(kernel));
    let compare = |object: &BuiltObject| {
        let there = existing.get(&ObjectName::parse(&object.name)?.module)?;
        let why = refusal(machine, there, &built.join(&object.name), &object.digest)?;
        let by = there.strip_prefix(&dir).unwrap_or(there).to_string_lossy().into_owned();
        let by_dkms = new.placed_by_others().iter().any(|placed| placed.path == by);
        let name = object.name.clone();
        Some(Refused { object: RefusedObject { name, by: Some(by), why }, by_dkms })
    };
    objects.iter().filter_map(compare).collect()
}

/// Returns true if `kernel` is at least as new as `limit`, the first kernel that makes the module
/// obsolete. Ignores dashes in both.
fn is_obsolete(kernel: &KernelRelease, limit: &str) -> bool {
    let key = |text: &str| version::key(&text.replace('-', ""));
    key(kernel.as_str()) >= key(limit)
}

/// Returns the existing files that compete with the objects of `new`, by module name.
///
/// They are files in the kernel's directory with the same module name. If several have the same
/// name, only the one that modprobe would load is returned.
fn existing(new: &BuiltModule<'_>) -> BTreeMap<String, PathBuf> {
    let BuiltModule { machine, id, kernel, .. } = *new;
    let dir = machine.trees.kernel(kernel);
    let objects = new.objects().iter();
    let names: BTreeSet<String> =
        objects.filter_map(|object| Some(ObjectName::parse(&object.name)?.module)).collect();
    let own: BTreeSet<PathBuf> = new.placed().iter().map(|it| dir.join(&it.path)).collect();
    // A transaction may install an older version, since pacman can downgrade packages.
    let is_named = machine.options.module.as_ref() == Some(id);
    // Reads the records of all modules, which is rarely necessary.
    let is_of_others = |path: &Path| {
        !is_named && new.placed_by_others().iter().any(|placed| dir.join(&placed.path) == path)
    };
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let headers = |entry: &walkdir::DirEntry| {
        entry.depth() == 1 && ["build", "source"].iter().any(|name| entry.file_name() == *name)
    };
    let files = walkdir::WalkDir::new(&dir).into_iter().filter_entry(|entry| !headers(entry));
    for entry in files.flatten().filter(|entry| entry.file_type().is_file()) {
        let name = entry.file_name().to_str().and_then(ObjectName::parse);
        let Some(name) = name.filter(|name| names.contains(&name.module)) else { continue };
        if own.contains(entry.path()) || is_of_others(entry.path()) {
            continue;
        }
        let rank = |path: &Path| rank(&dir, path);
        match found.get(&name.module) {
            Some(other) if rank(other) <= rank(entry.path()) => {}
            _ => _ = found.insert(name.module, entry.into_path()),
        }
    }
    found
}

/// Returns the rank of a file in depmod's default order: `updates` first, `kernel` last. The lowest
/// rank wins.
fn rank(dir: &Path, file: &Path) -> (u8, PathBuf) {
    let below = file.strip_prefix(dir).unwrap_or(file);
    let rank = if below.starts_with("updates") {
        0
    } else if below.starts_with("kernel") {
        2
    } else {
        1
    };
    (rank, below.to_owned())
}

/// Returns the reason if the existing file `there` prevents the installation of the object `built`;
/// `None` if it does not. `digest` is the digest of `built`.
fn refusal(machine: &Machine, there: &Path, built: &Path, digest: &Digest) -> Option<String> {
    let (old, old_source) = versions(machine, there);
    let (new, new_source) = versions(machine, built);
    let file = there.display();
    if version::compare(&old, &new) == Ordering::Greater {
        let new = if new.is_empty() { "none" } else { &new };
        return Some(format!("{file} is newer (version {old}, this one has {new})"));
    }
    let unknown = [&old, &old_source, &new, &new_source].iter().all(|text| text.is_empty());
    let same = if unknown {
        Digest::of_file(there).is_ok_and(|other| other == *digest)
    } else {
        (old, old_source) == (new, new_source)
    };
    same.then(|| format!("the kernel already ships an identical module: {file}"))
}

/// Returns the `version` and the `srcversion` of an object. Each is empty if the object does not
/// state it.
fn versions(machine: &Machine, object: &Path) -> (String, String) {
    let info = read_stored_modinfo(&machine.tools, &machine.env, object).unwrap_or_default();
    let word = |text: Option<String>| {
        text.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
    };
    (word(info.version), word(info.srcversion))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("6.11.9", false)]
    #[case("6.12", true)]
    #[case("6.12.1-arch1-1", true)]
    fn modules_are_obsolete_from_the_limit_on(#[case] kernel: &str, #[case] want: bool) {
        assert_eq!(is_obsolete(&kernel.parse().unwrap(), "6.12"), want);
    }

    #[rstest]
    #[case("updates/dkms/a.ko", "extra/a.ko")]
    #[case("extra/a.ko", "kernel/drivers/a.ko")]
    #[case("extra/a.ko", "extra/b.ko")]
    fn file_that_modprobe_prefers_has_the_lower_rank(#[case] first: &str, #[case] second: &str) {
        let dir = Path::new("/lib/modules/6.1");
        assert!(rank(dir, &dir.join(first)) < rank(dir, &dir.join(second)));
    }
}
