//! Determines the name and version of the module in a source directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::conf::{ConfRequest, Confs, Values};
use crate::machine::{Kernel, Kernels, Machine, running_release};
use crate::names::{BadName, ModuleId};

/// Returns the module in each of the directories `dirs` of the source tree.
///
/// Evaluates the dkms.conf only if the name of the directory is ambiguous. If PACKAGE_NAME and
/// PACKAGE_VERSION joined by a dash are the directory's name, they are the module's name and
/// version. In all other cases, the version starts after the last dash.
#[must_use]
pub fn modules_of_sources(
    machine: &Machine,
    dirs: &BTreeSet<String>,
) -> BTreeMap<String, Result<ModuleId, BadName>> {
    modules_with(machine, &Confs::new(machine), dirs)
}

/// Like [`modules_of_sources`], with an existing evaluator.
pub(super) fn modules_with(
    machine: &Machine,
    confs: &Confs<'_>,
    dirs: &BTreeSet<String>,
) -> BTreeMap<String, Result<ModuleId, BadName>> {
    let ambiguous = dirs.iter().filter(|dir| ModuleId::is_ambiguous(dir));
    let places: Vec<(String, PathBuf)> =
        ambiguous.map(|dir| (dir.clone(), machine.trees.source.join(dir))).collect();
    let named = named_by_confs(machine, confs, &places);
    let module = |dir: &String| match named.get(dir) {
        Some(id) => Ok(id.clone()),
        None => ModuleId::from_source_dir(dir),
    };
    dirs.iter().map(|dir| (dir.clone(), module(dir))).collect()
}

/// Evaluates the confs of the sources in `places`, a list of directory names and paths. Returns, by
/// directory name, the modules whose confs set a name and version that fit that name.
fn named_by_confs(
    machine: &Machine,
    confs: &Confs<'_>,
    places: &[(String, PathBuf)],
) -> BTreeMap<String, ModuleId> {
    if places.is_empty() {
        return BTreeMap::new();
    }
    // Most confs set the same name for all kernels, so any kernel will do.
    let any = || Kernels::read(&machine.trees).ok()?.all.into_iter().next();
    let running = running_release().map(|release| Kernel::of_release(&machine.trees, release));
    let Some(kernel) = running.or_else(any) else { return BTreeMap::new() };
    let request = |(dir, source): &(String, PathBuf)| {
        let id = ModuleId::from_source_dir(dir).ok()?;
        Some((dir.clone(), ConfRequest { id, kernel: &kernel, source: source.clone() }))
    };
    let (dirs, requests): (Vec<String>, Vec<_>) = places.iter().filter_map(request).unzip();
    let results = confs.evaluate_all(&requests).into_iter();
    let named = dirs.into_iter().zip(results).filter_map(|(dir, result)| {
        let id = named(&dir, &result.ok()?.values)?;
        Some((dir, id))
    });
    named.collect()
}

/// Returns the module that a dkms.conf with `values` names, or `None` if the module's name and
/// version do not fit `dir`, the name of the source directory.
pub(crate) fn named(dir: &str, values: &Values) -> Option<ModuleId> {
    let (name, version) = (values.text("PACKAGE_NAME", 0)?, values.text("PACKAGE_VERSION", 0)?);
    ModuleId::named(dir, name, version)
}

/// Returns the module that the dkms.conf in `source` names, or `None` if the module's name and
/// version do not fit `dir`. `source` is a copy of the directory `dir` of the source tree.
pub(crate) fn named_by_conf(machine: &Machine, dir: &str, source: &Path) -> Option<ModuleId> {
    let places = [(dir.to_owned(), source.to_owned())];
    named_by_confs(machine, &Confs::new(machine), &places).remove(dir)
}
