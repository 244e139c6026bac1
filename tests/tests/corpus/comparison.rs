//! Runs a package with both implementations of dkms.

use std::collections::BTreeSet;
use std::thread;

use stories::{Root, find};

use crate::lifecycle::{Implementation, Lifecycle};
use crate::sections::differing_sections;
use crate::source_package::SourcePackage;

/// The kernels of the testbed, as aliases of [`find`].
pub const KERNELS: [&str; 2] = ["linux-1", "linux-lts-1"];

/// The results of both programs for one package and kernel.
#[derive(Debug)]
pub struct PackageResult {
    /// The real dkms.
    pub dkms: Lifecycle,
    /// alpm-dkms.
    pub ours: Lifecycle,
    /// The number of objects whose contents differ.
    pub differing: usize,
    /// The sections in which they differ.
    pub sections: BTreeSet<String>,
    /// Whether two builds by the real dkms also differ in these sections.
    pub unstable: bool,
}

/// A machine with both kernels, their headers and both programs.
#[derive(Debug)]
pub struct Comparison {
    root: Root,
}

impl Comparison {
    /// Creates the machine, with the build dependencies of the packages of a stage.
    pub fn new(stage: &str) -> Self {
        let root = Root::ready();
        let packages = ["linux-1", "linux-headers-1", "linux-lts-1", "linux-lts-headers-1"];
        root.install(&packages.map(find));
        root.copy_stage(stage);
        Self { root }
    }

    /// Runs both programs on a package for a kernel, in parallel and each on a fork of the machine.
    ///
    /// If the objects differ, the real dkms builds them once more.
    pub fn run(&self, source: &SourcePackage, kernel: &str) -> PackageResult {
        let run = |program| Lifecycle::run(&self.root.fork(), program, source, kernel);
        let (dkms, ours) = thread::scope(|scope| {
            let dkms = scope.spawn(|| run(Implementation::Dkms));
            let ours = run(Implementation::Ours);
            (dkms.join().expect("run the real dkms"), ours)
        });
        let (differing, sections) = differences(&dkms, &ours);
        let unstable =
            differing > 0 && sections.is_subset(&differences(&dkms, &run(Implementation::Dkms)).1);
        PackageResult { dkms, ours, differing, sections, unstable }
    }

    /// Returns the output of a shell command on this machine.
    pub fn output_of(&self, command: &str) -> String {
        self.root.shell(command).ok().text.trim().to_owned()
    }
}

/// Returns the number of objects that both runs installed with different contents, and the sections
/// in which they differ.
fn differences(one: &Lifecycle, other: &Lifecycle) -> (usize, BTreeSet<String>) {
    let pairs =
        one.contents.iter().filter_map(|(path, here)| Some((here, other.contents.get(path)?)));
    let differing: Vec<Vec<String>> = pairs
        .map(|(here, there)| differing_sections(here, there))
        .filter(|sections| !sections.is_empty())
        .collect();
    (differing.len(), differing.into_iter().flatten().collect())
}
