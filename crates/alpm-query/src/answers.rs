//! Answers lookups with the content of pacman's databases. The answers can be serialised as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::args::Lookup;
use crate::database::{Database, LocalPackage};

/// The answers to all lookups. The answer for an unowned path or an unknown package is `null`.
#[derive(Debug, Default, Serialize)]
pub struct Answers {
    /// The owner of each path. Each key is a path from the lookups, without a leading `/`.
    pub owners: BTreeMap<String, Option<LocalPackage>>,
    /// The packages of each kernel. Each key is a release from the lookups.
    pub kernels: BTreeMap<String, KernelPackages>,
    /// The version of each package in the sync databases. Each key is a name from the lookups.
    /// Omitted if there are no such lookups.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub available: BTreeMap<String, Option<String>>,
}

/// The packages that own one kernel and its headers.
#[derive(Debug, Serialize)]
pub struct KernelPackages {
    /// The package that owns the kernel; `null` for a copied or self-built kernel.
    pub kernel: Option<LocalPackage>,
    /// The package that owns the installed headers; `null` if no package does.
    pub headers: Option<LocalPackage>,
    /// The name of the package with the headers, installed or not: the kernel's package base
    /// followed by `-headers`, as on Arch. `null` if the package base is unknown.
    pub headers_package: Option<String>,
}

/// Files in a kernel's directory that belong to the kernel's package. Our hooks trigger on
/// `modules.order`, and some packages lack one of the other files.
const MARKS: [&str; 3] = ["modules.order", "pkgbase", "vmlinuz"];

impl Answers {
    /// Answers all lookups in one pass over the database.
    #[must_use]
    pub fn find(lookups: &[Lookup], database: &Database) -> Self {
        let mut paths = Vec::new();
        for lookup in lookups {
            match lookup {
                Lookup::Owner(path) => paths.push(path.clone()),
                Lookup::Kernel(release) => {
                    paths.extend(MARKS.map(|mark| in_kernel(release, mark)));
                    paths.push(in_kernel(release, "build/include/"));
                }
                Lookup::Available(_) => {}
            }
        }
        let mut found = database.owners(&paths).into_iter();
        let mut answers = Self::default();
        for lookup in lookups {
            match lookup {
                Lookup::Owner(path) => {
                    let path = String::from_utf8_lossy(path).into_owned();
                    answers.owners.insert(path, found.next().flatten());
                }
                Lookup::Available(name) => {
                    let version = database.available_version(name);
                    answers.available.insert(name.clone(), version);
                }
                Lookup::Kernel(release) => {
                    let marked: Vec<_> = found.by_ref().take(MARKS.len()).collect();
                    let kernel = marked.into_iter().flatten().next();
                    let headers = found.next().flatten();
                    let base = database
                        .pkgbase(release)
                        .or_else(|| kernel.as_ref().map(|package| package.name.clone()));
                    let headers_package = base.map(|base| base + "-headers");
                    answers.kernels.insert(
                        release.clone(),
                        KernelPackages { kernel, headers, headers_package },
                    );
                }
            }
        }
        answers
    }
}

fn in_kernel(release: &str, path: &str) -> Vec<u8> {
    format!("usr/lib/modules/{release}/{path}").into_bytes()
}
