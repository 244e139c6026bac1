//! A machine for tests, with one kernel.

use dkms_engine::machine::{Kernel, Kernels, Machine};
use testroot::TestRoot;

/// Returns a machine with the files `files`, given as pairs of path and text, and with one kernel:
/// `release` from the package `linux`.
pub(crate) fn test_machine(release: &str, files: &[(&str, &str)]) -> (TestRoot, Machine, Kernel) {
    let root = TestRoot::new();
    root.kernel(release).pkgbase("linux");
    files.iter().for_each(|(file, text)| root.write(file, text));
    let machine = Machine::for_hook(root.path());
    let kernel = Kernels::read(&machine.trees).unwrap().all.remove(0);
    (root, machine, kernel)
}
