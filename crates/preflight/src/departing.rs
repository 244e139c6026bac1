//! Finds the sources and kernels that a transaction removes, and the files that stay beside the
//! arriving ones.

use std::collections::BTreeSet;
use std::path::Path;

use alpm_hook::package_query::{self, InstalledPackage, PackageQuery, Packages};
use dkms_engine::machine::Machine;
use walkdir::WalkDir;

use crate::arriving::Arriving;
use crate::not_tried::NotTried;
use crate::scratch::Departing;

/// Returns the sources and kernels of the installed packages that the transaction replaces or
/// removes. Includes directories that the arriving packages contain again.
pub(crate) fn departing(arriving: &Arriving, owners: &Packages) -> Departing {
    let leaving = leaving(arriving);
    let leaves = |package: Option<&InstalledPackage>| {
        package.is_some_and(|package| leaving.contains(package.name.as_str()))
    };
    let sources = owners.sources();
    Departing {
        sources: sources.filter(|dir| leaves(owners.of_source(dir))).map(str::to_owned).collect(),
        kernels: owners.kernels().filter(|it| leaves(owners.of_kernel(it))).cloned().collect(),
        headers: owners.kernels().filter(|it| leaves(owners.of_headers(it))).cloned().collect(),
    }
}

/// Returns the files that stay in the directories of arriving sources: files that no package owns,
/// such as generated files, and files of packages that stay. The returned paths have no leading
/// `/`.
///
/// `program` is the path of alpm-query.
pub(crate) fn staying_files(
    program: &Path,
    machine: &Machine,
    arriving: &Arriving,
    sources: &BTreeSet<String>,
) -> Result<BTreeSet<String>, NotTried> {
    let trees = &machine.trees;
    let dirs = sources.iter().map(|dir| trees.source.join(dir));
    let entries = dirs.flat_map(|dir| WalkDir::new(dir).into_iter().flatten());
    let files = entries.filter(|entry| !entry.file_type().is_dir());
    let path = |path: &Path| Some(path.strip_prefix(&trees.root).ok()?.to_str()?.to_owned());
    let mut files: BTreeSet<String> = files.filter_map(|entry| path(entry.path())).collect();
    if files.is_empty() {
        return Ok(files);
    }
    let query = PackageQuery { paths: files.clone(), ..PackageQuery::default() };
    let owners = package_query::ask(program, &trees.root, &query)?;
    let leaving = leaving(arriving);
    files.retain(|file| {
        owners.of_path(file).is_none_or(|package| !leaving.contains(package.name.as_str()))
    });
    Ok(files)
}

/// Returns the names of the installed packages that the transaction replaces or removes.
fn leaving(arriving: &Arriving) -> BTreeSet<&str> {
    let packages = arriving.packages.iter();
    packages
        .flat_map(|package| {
            package.removes.iter().map(String::as_str).chain([package.name.as_str()])
        })
        .collect()
}
