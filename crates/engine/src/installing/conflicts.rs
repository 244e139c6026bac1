//! Whether an object may be installed beside what a kernel has of that name (dkms-behaviour 5.3).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::dkms_tree::BuiltObject;
use crate::installing::BuiltModule;
use crate::machine::Machine;
use crate::names::KernelRelease;
use crate::objects::{ObjectName, read_stored_modinfo};
use crate::os::digest::Digest;
use crate::version;

/// Where packages of modules say that theirs are to be installed in any case.
const FORCED: &str = "usr/share/dkms/modules_to_force_install";

/// An object that is not installed, and why not.
pub(crate) struct Refused {
    /// Its file name.
    pub(crate) object: String,
    /// A sentence.
    pub(crate) why: String,
}

/// Which of a module's built objects are not to be installed for a kernel.
///
/// dkms compares with the first file that a search happens to meet; here it is the one that
/// modprobe would take. What dkms itself has placed is no hindrance, but where a person asks for
/// an older version by its name.
pub(crate) fn refused_objects(new: &BuiltModule<'_>, obsolete_by: Option<&str>) -> Vec<Refused> {
    let BuiltModule { machine, id, kernel, .. } = *new;
    let objects = new.objects();
    let forced = forced_words(machine);
    if machine.options.force_install || forced.contains(id.name.as_str()) {
        return Vec::new();
    }
    if let Some(limit) = obsolete_by.filter(|limit| is_obsolete(kernel, limit)) {
        let why = format!("since kernel {limit} the kernel has it itself (OBSOLETE_BY)");
        let refuse =
            |object: &BuiltObject| Refused { object: object.name.clone(), why: why.clone() };
        return objects.iter().map(refuse).collect();
    }
    let override_word = format!("{}_version-override", id.name);
    if machine.options.force_version || forced.contains(&override_word) {
        return Vec::new();
    }
    let existing = existing(new);
    let built = new.dir();
    let compare = |object: &BuiltObject| {
        let there = existing.get(&ObjectName::parse(&object.name)?.module)?;
        let why = hindrance(machine, there, &built.join(&object.name), &object.digest)?;
        Some(Refused { object: object.name.clone(), why })
    };
    objects.iter().filter_map(compare).collect()
}

/// Returns true if a kernel is as new as the one that made a module obsolete; dashes do not count.
fn is_obsolete(kernel: &KernelRelease, limit: &str) -> bool {
    let key = |text: &str| version::key(&text.replace('-', ""));
    key(kernel.as_str()) >= key(limit)
}

/// The words in the files that name modules to be installed in any case.
fn forced_words(machine: &Machine) -> BTreeSet<String> {
    let files = fs::read_dir(machine.trees.root.join(FORCED)).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts.flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// For each module name the file in the kernel's directory that modprobe takes for it.
fn existing(new: &BuiltModule<'_>) -> BTreeMap<String, PathBuf> {
    let BuiltModule { machine, id, kernel, .. } = *new;
    let dir = machine.trees.kernel(kernel);
    let objects = new.objects().iter();
    let names: BTreeSet<String> =
        objects.filter_map(|object| Some(ObjectName::parse(&object.name)?.module)).collect();
    let mut ours = new.placed();
    // A transaction may bring an older version: pacman downgrades.
    if machine.options.module.as_ref() != Some(id) {
        ours.extend_from_slice(new.placed_by_others());
    }
    let ours: BTreeSet<PathBuf> = ours.iter().map(|placed| dir.join(&placed.path)).collect();
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let headers = |entry: &walkdir::DirEntry| {
        entry.depth() == 1 && ["build", "source"].iter().any(|name| entry.file_name() == *name)
    };
    let files = walkdir::WalkDir::new(&dir).into_iter().filter_entry(|entry| !headers(entry));
    for entry in files.flatten().filter(|entry| entry.file_type().is_file()) {
        let name = entry.file_name().to_str().and_then(ObjectName::parse);
        let Some(name) = name.filter(|name| names.contains(&name.module)) else { continue };
        if ours.contains(entry.path()) {
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

/// depmod's usual order: `updates` before everything, the kernel's own last.
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

/// Why `built` does not take the place of `there`, if it does not.
fn hindrance(machine: &Machine, there: &Path, built: &Path, digest: &Digest) -> Option<String> {
    let (old, old_source) = versions(machine, there);
    let (new, new_source) = versions(machine, built);
    let file = there.display();
    if version::compare(&old, &new) == Ordering::Greater {
        let new = if new.is_empty() { "no version" } else { &new };
        return Some(format!(
            "the kernel has a newer one, {file}: version {old} against {new}; to install it all \
             the same: --force-version-override"
        ));
    }
    let unknown = [&old, &old_source, &new, &new_source].iter().all(|text| text.is_empty());
    let same = if unknown {
        Digest::of_file(there).is_ok_and(|other| other == *digest)
    } else {
        (old, old_source) == (new, new_source)
    };
    same.then(|| format!("the kernel has the very same: {file}; to install it anyway: --force"))
}

/// The version of an object and that of its source; empty if it has none, or is no object.
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
    fn knows_which_kernels_made_it_obsolete(#[case] kernel: &str, #[case] want: bool) {
        assert_eq!(is_obsolete(&kernel.parse().unwrap(), "6.12"), want);
    }

    #[rstest]
    #[case("updates/dkms/a.ko", "extra/a.ko")]
    #[case("extra/a.ko", "kernel/drivers/a.ko")]
    #[case("extra/a.ko", "extra/b.ko")]
    fn takes_what_modprobe_takes(#[case] first: &str, #[case] second: &str) {
        let dir = Path::new("/lib/modules/6.1");
        assert!(rank(dir, &dir.join(first)) < rank(dir, &dir.join(second)));
    }
}
