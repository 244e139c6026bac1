//! Finds the kernel objects that compete with those of a module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::dkms_tree::{Inventory, other_compressions, slot};
use crate::objects::ObjectName;

/// The files that list the objects of a kernel. `modules.order` lists the kernel's own objects,
/// without compression suffixes. depmod writes `modules.dep`.
const LISTS: [&str; 2] = ["modules.order", "modules.dep"];

/// The entries of a kernel's directory that contain its headers.
const HEADERS: [&str; 2] = ["build", "source"];

/// Returns the files that compete with the objects `names`, by module name.
///
/// A rival is a file in the kernel's directory with the module name of one of the objects. Files
/// that alpm-dkms has placed, and files at the `places` of the objects, are no rivals. If several
/// rivals have the same name, returns only the one that modprobe would load. Looks up the kernel's
/// own objects in the lists instead of the directory, since a kernel has some 6,000.
pub(super) fn rivals(
    inventory: &Inventory,
    names: &BTreeSet<String>,
    places: &[String],
) -> BTreeMap<String, PathBuf> {
    let dir = inventory.dir();
    let mut found = Rivals { inventory, names, places, found: BTreeMap::new() };
    let mut has_list = false;
    for text in LISTS.iter().filter_map(|list| fs::read_to_string(dir.join(list)).ok()) {
        has_list = true;
        text.lines().for_each(|line| found.add_listed(line.split(':').next().unwrap_or(line)));
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if (has_list && name == "kernel") || HEADERS.iter().any(|headers| name == *headers) {
            continue;
        }
        let files = WalkDir::new(entry.path()).into_iter().flatten();
        for file in files.filter(|entry| entry.file_type().is_file()) {
            if let Ok(path) = file.path().strip_prefix(dir) {
                path.to_str().into_iter().for_each(|path| found.add(path));
            }
        }
    }
    found.found.into_iter().map(|(name, (_, path))| (name, dir.join(path))).collect()
}

struct Rivals<'a> {
    inventory: &'a Inventory,
    names: &'a BTreeSet<String>,
    places: &'a [String],
    /// For each module name, the file with the lowest rank.
    found: BTreeMap<String, (u8, String)>,
}

impl Rivals<'_> {
    /// Adds an object from a list if it exists with any compression.
    fn add_listed(&mut self, path: &str) {
        if self.name(path).is_none() {
            return;
        }
        for path in [path.to_owned()].into_iter().chain(other_compressions(path)) {
            if self.inventory.dir().join(&path).is_file() {
                self.add(&path);
            }
        }
    }

    fn add(&mut self, path: &str) {
        let Some(name) = self.name(path) else { return };
        let is_place = self.places.iter().any(|place| slot(place) == slot(path));
        if is_place || self.inventory.top(path).is_some() {
            return;
        }
        let new = (rank(path), path.to_owned());
        match self.found.get(&name) {
            Some(other) if *other <= new => {}
            _ => _ = self.found.insert(name, new),
        }
    }

    /// Returns the module name of the object at `path`, or `None` if `names` does not contain it.
    fn name(&self, path: &str) -> Option<String> {
        let name = ObjectName::parse(path.rsplit('/').next()?)?.module;
        self.names.contains(&name).then_some(name)
    }
}

/// Returns the rank of a file in depmod's default order: `updates` first, `kernel` last. The lowest
/// rank wins.
fn rank(path: &str) -> u8 {
    if Path::new(path).starts_with("updates") {
        0
    } else if Path::new(path).starts_with("kernel") {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkms_tree::{BuiltObject, Placed};
    use crate::machine::Trees;
    use crate::names::Arch;
    use crate::os::digest::Digest;
    use rstest::rstest;

    #[rstest]
    #[case("updates/dkms/a.ko", "extra/a.ko")]
    #[case("extra/a.ko", "kernel/drivers/a.ko")]
    fn file_that_modprobe_prefers_has_the_lower_rank(#[case] first: &str, #[case] second: &str) {
        assert!(rank(first) < rank(second));
    }

    /// Returns the rivals of the objects `names`, with paths relative to the kernel's directory.
    /// The directory contains `files`, the inventory lists `listed`, and the place of `a` is in
    /// `updates/dkms`.
    fn rivals_of(names: &[&str], files: &[(&str, &str)], listed: &[&str]) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let trees = Trees::under(root.path());
        let kernel = "7.2".parse().unwrap();
        let dir = trees.kernel(&kernel);
        for (file, text) in files {
            fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
            fs::write(dir.join(file), text).unwrap();
        }
        let mut inventory = Inventory::read(&trees, &kernel);
        for path in listed {
            let (location, name) = path.rsplit_once('/').unwrap();
            let object = BuiltObject {
                name: name.to_owned(),
                digest: Digest::of_bytes(b""),
                location: location.to_owned(),
                built_for: None,
            };
            let arch = Arch::of_this_machine();
            inventory.list(Placed::intended(&"m/1".parse().unwrap(), &arch, &object, None));
        }
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let found = rivals(&inventory, &names, &["updates/dkms/a.ko.zst".to_owned()]);
        let relative = |path: &PathBuf| path.strip_prefix(&dir).unwrap().display().to_string();
        found.iter().map(|(name, path)| format!("{name} {}", relative(path))).collect()
    }

    #[rstest]
    #[case::of_the_kernel(&[("modules.order", "kernel/x/a.ko\n"), ("kernel/x/a.ko.zst", "")],
        &["a kernel/x/a.ko.zst"])]
    #[case::of_depmod(&[("modules.dep", "kernel/a.ko.xz: kernel/b.ko.xz\n"), ("kernel/a.ko.xz", "")],
        &["a kernel/a.ko.xz"])]
    #[case::listed_but_missing(&[("modules.order", "kernel/a.ko\n")], &[])]
    #[case::not_listed(&[("modules.order", ""), ("kernel/a.ko", "")], &[])]
    #[case::without_lists(&[("kernel/a.ko", ""), ("kernel/x/b.ko", "")],
        &["a kernel/a.ko", "b kernel/x/b.ko"])]
    #[case::in_headers(&[("build/a.ko", ""), ("source/b.ko", "")], &[])]
    #[case::other_name(&[("extra/c.ko", ""), ("extra/a.o", ""), ("extra/ab.ko", "")], &[])]
    #[case::in_its_place(&[("updates/dkms/a.ko", ""), ("updates/dkms/b.ko", "")],
        &["b updates/dkms/b.ko"])]
    #[case::the_preferred_one(&[("modules.order", "kernel/a.ko\n"), ("kernel/a.ko", ""),
        ("extra/a.ko", ""), ("updates/a.ko", "")], &["a updates/a.ko"])]
    #[case::first_of_equals(&[("extra/a.ko", ""), ("weak-updates/a.ko", ""), ("fs/a.ko", "")],
        &["a extra/a.ko"])]
    fn finds_the_file_that_modprobe_would_load(
        #[case] files: &[(&str, &str)],
        #[case] want: &[&str],
    ) {
        assert_eq!(rivals_of(&["a", "b"], files, &[]), want);
    }

    #[test]
    fn placed_objects_are_no_rivals() {
        let files = [("extra/a.ko", ""), ("updates/b.ko", "")];
        assert_eq!(rivals_of(&["a", "b"], &files, &["extra/a.ko.zst"]), ["b updates/b.ko"]);
    }
}
