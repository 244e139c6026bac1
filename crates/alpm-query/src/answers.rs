//! What is answered, in the form it goes out.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::database::{Database, Package};
use crate::question::Question;

/// All answers of one call. A path or package that is not known is `null`.
#[derive(Debug, Serialize)]
pub struct Answers {
    /// The owner of each path, under the path as it was asked, without a leading `/`.
    pub owners: BTreeMap<String, Option<Package>>,
    /// The packages of each kernel release.
    pub kernels: BTreeMap<String, Kernel>,
}

/// The packages of one kernel release.
#[derive(Debug, Serialize)]
pub struct Kernel {
    /// The package that the kernel is from; `null` for a copy or a self-built kernel.
    pub kernel: Option<Package>,
    /// The package that its headers are from.
    pub headers: Option<Package>,
    /// The package to install for its headers, as Arch names them: the package base and `-headers`.
    pub headers_package: Option<String>,
}

/// Files that say whose a kernel is. `modules.order` is what the hooks look at; a kernel package
/// may lack one of the others.
const MARKS: [&str; 3] = ["modules.order", "pkgbase", "vmlinuz"];

impl Answers {
    /// Looks everything up in one pass over the database.
    #[must_use]
    pub fn find(questions: &[Question], database: &Database) -> Self {
        let mut paths = Vec::new();
        for question in questions {
            match question {
                Question::Owner(path) => paths.push(path.clone()),
                Question::Kernel(release) => {
                    paths.extend(MARKS.map(|mark| in_kernel(release, mark)));
                    paths.push(in_kernel(release, "build/include/"));
                }
            }
        }
        let mut found = database.owners(&paths).into_iter();
        let mut answers = Self { owners: BTreeMap::new(), kernels: BTreeMap::new() };
        for question in questions {
            match question {
                Question::Owner(path) => {
                    let path = String::from_utf8_lossy(path).into_owned();
                    answers.owners.insert(path, found.next().flatten());
                }
                Question::Kernel(release) => {
                    let marked: Vec<_> = found.by_ref().take(MARKS.len()).collect();
                    let kernel = marked.into_iter().flatten().next();
                    let headers = found.next().flatten();
                    let base = database
                        .pkgbase(release)
                        .or_else(|| kernel.as_ref().map(|package| package.name.clone()));
                    let headers_package = base.map(|base| base + "-headers");
                    answers
                        .kernels
                        .insert(release.clone(), Kernel { kernel, headers, headers_package });
                }
            }
        }
        answers
    }
}

fn in_kernel(release: &str, path: &str) -> Vec<u8> {
    format!("usr/lib/modules/{release}/{path}").into_bytes()
}
