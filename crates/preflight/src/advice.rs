//! Finds newer sources of the modules that do not build.

use std::collections::BTreeMap;
use std::path::Path;

use alpm_hook::package_query::{self, InstalledPackage, PackageQuery, Packages};
use dkms_engine::machine::Machine;
use dkms_engine::names::ModuleId;

use crate::arriving::Arriving;
use crate::verdict::{RegressionCause, Verdict};

/// The program that looks up packages.
const ALPM_QUERY: &str = "/usr/lib/alpm-dkms/alpm-query";

/// Returns a line if there may be a newer source of an installed module: the repositories have
/// another version of its package, or its package is foreign. Returns `None` otherwise, and also if
/// alpm-query does not answer or no package owns the source.
#[must_use]
pub fn newer_source(machine: &Machine, module: &ModuleId) -> Option<String> {
    let (program, root, dir) = (Path::new(ALPM_QUERY), &machine.trees.root, module.source_dir());
    let query = PackageQuery { sources: [dir.clone()].into(), ..PackageQuery::default() };
    let owners = package_query::ask(program, root, &query).ok()?;
    let package = owners.of_source(&dir)?.clone();
    lines(program, root, &[(module, package)].into(), "; run: pacman -Syu").pop()
}

/// Returns a line for each module that would be lost although there may be a newer source: the
/// repositories have another version of its package, or its package is foreign (for example, from
/// the AUR).
///
/// `program` is the path of alpm-query. Returns an empty list if alpm-query fails.
pub(crate) fn newer_sources(
    program: &Path,
    root: &Path,
    verdict: &Verdict,
    arriving: &Arriving,
    owners: &Packages,
) -> Vec<String> {
    let tried = verdict.regressions.iter().filter_map(|regression| match &regression.why {
        RegressionCause::DoesNotBuild(module, _) => Some(module),
        RegressionCause::NoHeaders => None,
    });
    let packages: BTreeMap<&ModuleId, InstalledPackage> =
        tried.filter_map(|module| Some((module, package_of(module, arriving, owners)?))).collect();
    lines(program, root, &packages, if arriving.upgrade { "" } else { "; run: pacman -Syu" })
}

/// Returns a line for each module for which there may be a newer version of the given package. A
/// line about a version in the repositories ends with `command`.
fn lines(
    program: &Path,
    root: &Path,
    packages: &BTreeMap<&ModuleId, InstalledPackage>,
    command: &str,
) -> Vec<String> {
    let names = packages.values().map(|package| package.name.clone()).collect();
    let query = PackageQuery { available: names, ..PackageQuery::default() };
    let Ok(found) = package_query::ask(program, root, &query) else { return Vec::new() };
    let line = |(module, package): (&&ModuleId, &InstalledPackage)| {
        let name = &package.name;
        match found.available(name) {
            Some(version) if version != package.version => {
                Some(format!("for {module}, the repositories have {name} {version}{command}"))
            }
            Some(_) => None,
            // With an AUR helper, since helpers upgrade the packages of the repositories first.
            None => Some(format!(
                "no repository contains {name}; if the AUR has a newer version, run: yay -S {name}"
            )),
        }
    };
    packages.iter().filter_map(line).collect()
}

/// Returns the package that contains the source of a module: the arriving package if there is one,
/// otherwise the installed package.
fn package_of(
    module: &ModuleId,
    arriving: &Arriving,
    owners: &Packages,
) -> Option<InstalledPackage> {
    let dir = module.source_dir();
    let conf = format!("usr/src/{dir}/dkms.conf");
    let arrives = arriving.packages.iter().find(|package| package.paths.contains(&conf));
    let arrives =
        arrives.map(|it| InstalledPackage { name: it.name.clone(), version: it.version.clone() });
    arrives.or_else(|| owners.of_source(&dir).cloned())
}
