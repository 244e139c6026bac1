//! Runs a package with both implementations of dkms.

use std::thread;

use stories::{Root, find};

use crate::lifecycle::{Implementation, Lifecycle};
use crate::source_package::SourcePackage;

/// The results of both programs for one package.
#[derive(Debug)]
pub struct PackageResult {
    /// The real dkms.
    pub dkms: Lifecycle,
    /// alpm-dkms.
    pub ours: Lifecycle,
}

/// A machine with a kernel, its headers and both programs.
#[derive(Debug)]
pub struct Comparison {
    root: Root,
}

impl Comparison {
    /// Creates the machine, with the build dependencies of the packages of a stage.
    pub fn new(stage: &str) -> Self {
        let root = Root::ready();
        root.install(&["linux-1", "linux-headers-1"].map(find));
        root.copy_stage(stage);
        Self { root }
    }

    /// Runs both programs on a package, in parallel and each on a fork of the machine.
    pub fn run(&self, source: &SourcePackage) -> PackageResult {
        thread::scope(|scope| {
            let dkms =
                scope.spawn(|| Lifecycle::run(&self.root.fork(), Implementation::Dkms, source));
            let ours = Lifecycle::run(&self.root.fork(), Implementation::Ours, source);
            PackageResult { dkms: dkms.join().expect("run the real dkms"), ours }
        })
    }

    /// Returns the release of the kernel.
    pub fn kernel(&self) -> String {
        find("linux-1").release().to_owned()
    }

    /// Returns the output of a shell command on this machine.
    pub fn output_of(&self, command: &str) -> String {
        self.root.shell(command).ok().text.trim().to_owned()
    }
}
