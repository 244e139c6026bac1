//! Runs both implementations of dkms on one package.

use std::thread;

use stories::{Root, find};

use crate::lifecycle::{Implementation, Lifecycle};
use crate::source_package::SourcePackage;

/// What the two programs did with one package.
#[derive(Debug)]
pub struct PackageResult {
    /// The real dkms.
    pub dkms: Lifecycle,
    /// Ours.
    pub ours: Lifecycle,
}

/// A machine with a kernel and its headers, and with both programs.
#[derive(Debug)]
pub struct Comparison {
    root: Root,
}

impl Comparison {
    /// The machine for the packages of a stage, with what these need to build.
    pub fn new(stage: &str) -> Self {
        let root = Root::ready();
        root.install(&["linux-1", "linux-headers-1"].map(find));
        root.lay_over(stage);
        Self { root }
    }

    /// Lets both programs work on a package, at the same time and each on a fork of the machine.
    pub fn run(&self, source: &SourcePackage) -> PackageResult {
        thread::scope(|scope| {
            let dkms =
                scope.spawn(|| Lifecycle::run(&self.root.fork(), Implementation::Dkms, source));
            let ours = Lifecycle::run(&self.root.fork(), Implementation::Ours, source);
            PackageResult { dkms: dkms.join().expect("the real dkms comes to an end"), ours }
        })
    }

    /// The kernel that they build for.
    pub fn kernel(&self) -> String {
        find("linux-1").release().to_owned()
    }

    /// What a command says on this machine, for the head of the table.
    pub fn says(&self, command: &str) -> String {
        self.root.shell(command).ok().text.trim().to_owned()
    }
}
