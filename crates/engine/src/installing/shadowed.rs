//! Finds installed objects that modprobe does not load, because depmod prefers another file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::dkms_tree::Inventory;
use crate::machine::{Machine, ModuleIndex, module_of};
use crate::names::{KernelRelease, ModuleId};

/// The directories of depmod's configuration. A file hides the files of the same name in later
/// directories (depmod.d(5)).
pub(super) const SETTINGS: [&str; 5] =
    ["etc/depmod.d", "run/depmod.d", "usr/local/lib/depmod.d", "usr/lib/depmod.d", "lib/depmod.d"];

/// Warns of each installed object that modprobe does not load for `kernel`. The caller must run
/// depmod first.
pub(crate) fn warn_of_shadowed(machine: &Machine, kernel: &KernelRelease) {
    if machine.depmod {
        let inventory = Inventory::read(&machine.trees, kernel);
        for (_, message) in shadowed_objects(machine, kernel, &inventory) {
            machine.warnings.add(message);
        }
    }
}

/// Returns the module and a message for each object in `inventory` that modprobe does not load for
/// `kernel`.
pub(crate) fn shadowed_objects(
    machine: &Machine,
    kernel: &KernelRelease,
    inventory: &Inventory,
) -> Vec<(ModuleId, String)> {
    let trees = &machine.trees;
    let dir = trees.kernel(kernel);
    let Some(index) = ModuleIndex::read(&dir) else { return Vec::new() };
    let mut shadowed = Vec::new();
    for placed in inventory.on_top() {
        let Some(loaded) = index.loaded_for(&placed.path) else { continue };
        if loaded == placed.path {
            continue;
        }
        let mut text = format!(
            "{} for {kernel}: modprobe loads {} instead of {}",
            placed.module,
            dir.join(loaded).display(),
            placed.path
        );
        if let Some((file, line)) = deciding_setting(&trees.root, loaded) {
            text += &format!(": {}: {line}", file.display());
        }
        shadowed.push((placed.module.clone(), format!("{text}\n  see: depmod.d(5)")));
    }
    shadowed
}

/// Returns the file and the line of depmod's configuration that make modprobe load the object
/// `loaded`. Returns `None` if no line mentions the object's directory.
///
/// An `override` line for the module takes precedence over all `search` lines.
fn deciding_setting(root: &Path, loaded: &str) -> Option<(PathBuf, String)> {
    let name = module_of(loaded)?;
    let parent = Path::new(loaded).parent()?;
    let mut searches = Vec::new();
    for (file, text) in settings(root) {
        for line in text.replace("\\\n", " ").lines().map(str::trim) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["override", module, _, dir]
                    if module.replace('-', "_") == name && Path::new(dir) == parent =>
                {
                    return Some((file, words.join(" ")));
                }
                ["search", ref dirs @ ..] => {
                    let named = dirs.iter().any(|dir| parent.starts_with(dir));
                    let built_in = dirs.contains(&"built-in");
                    searches.push((!named, !built_in, file.clone(), words.join(" ")));
                }
                _ => {}
            }
        }
    }
    let named = searches.into_iter().filter(|(unnamed, unlisted, ..)| !unnamed || !unlisted);
    named.min_by_key(|(unnamed, ..)| *unnamed).map(|(_, _, file, line)| (file, line))
}

/// Returns depmod's configuration files below `root` with their texts, in the order in which depmod
/// reads them.
fn settings(root: &Path) -> Vec<(PathBuf, String)> {
    let mut files = BTreeMap::new();
    for dir in SETTINGS.map(|dir| root.join(dir)) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|end| end == "conf") {
                files.entry(entry.file_name()).or_insert(path);
            }
        }
    }
    let read = |path: PathBuf| Some((path.clone(), fs::read_to_string(&path).ok()?));
    files.into_values().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;

    #[rstest]
    #[case::by_override(
        &[("etc/depmod.d/x.conf", "# none\noverride msi-ec * kernel/x\n")],
        Some("etc/depmod.d/x.conf: override msi-ec * kernel/x")
    )]
    #[case::by_search(
        &[("usr/lib/depmod.d/search.conf", "search built-in \\\n  updates\n")],
        Some("usr/lib/depmod.d/search.conf: search built-in updates")
    )]
    #[case::by_a_directory(
        &[("etc/depmod.d/a.conf", "search built-in\n"), ("run/depmod.d/b.conf", "search kernel\n")],
        Some("run/depmod.d/b.conf: search kernel")
    )]
    #[case::override_first(
        &[("etc/depmod.d/a.conf", "search kernel\noverride msi_ec 7.2 kernel/x\n")],
        Some("etc/depmod.d/a.conf: override msi_ec 7.2 kernel/x")
    )]
    #[case::hidden(
        &[("etc/depmod.d/x.conf", ""), ("lib/depmod.d/x.conf", "override msi-ec * kernel/x\n")],
        None
    )]
    #[case::of_another_module(&[("etc/depmod.d/x.conf", "override foo * kernel/x\n")], None)]
    #[case::of_another_directory(&[("etc/depmod.d/x.conf", "override msi-ec * extra\n")], None)]
    #[case::no_setting(&[("etc/depmod.d/notes", "search kernel\n")], None)]
    fn finds_the_setting_that_decides(#[case] files: &[(&str, &str)], #[case] want: Option<&str>) {
        let root = TestRoot::new();
        for (file, text) in files {
            root.write(file, text);
        }
        let found = deciding_setting(root.path(), "kernel/x/msi-ec.ko.zst");
        let found = found.map(|(file, line)| {
            format!("{}: {line}", file.strip_prefix(root.path()).unwrap().display())
        });
        assert_eq!(found.as_deref(), want);
    }
}
