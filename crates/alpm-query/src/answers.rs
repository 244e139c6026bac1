//! Answers the lookups, in the form that is printed as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::args::Lookup;
use crate::database::{Database, LocalPackage};

/// The answers of one call. An unknown path or package is `null`.
#[derive(Debug, Serialize)]
pub struct Answers {
    /// The owner of each path. The keys are the given paths without a leading `/`.
    pub owners: BTreeMap<String, Option<LocalPackage>>,
    pub kernels: BTreeMap<String, KernelPackages>,
}

/// The packages of one kernel release.
#[derive(Debug, Serialize)]
pub struct KernelPackages {
    /// The kernel's package; `null` for a copied or self-built kernel.
    pub kernel: Option<LocalPackage>,
    /// The package of its headers.
    pub headers: Option<LocalPackage>,
    /// The package to install for its headers: the package base and `-headers`, as Arch names them.
    pub headers_package: Option<String>,
}

/// Files that a kernel package owns. The hooks trigger on `modules.order`; a package may lack one of
/// the others.
const MARKS: [&str; 3] = ["modules.order", "pkgbase", "vmlinuz"];

impl Answers {
    /// Looks everything up in one pass over the database.
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
            }
        }
        let mut found = database.owners(&paths).into_iter();
        let mut answers = Self { owners: BTreeMap::new(), kernels: BTreeMap::new() };
        for lookup in lookups {
            match lookup {
                Lookup::Owner(path) => {
                    let path = String::from_utf8_lossy(path).into_owned();
                    answers.owners.insert(path, found.next().flatten());
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
