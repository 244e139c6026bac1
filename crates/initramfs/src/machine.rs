//! A small machine for tests: one kernel, and whatever files a test is about.

use dkms_engine::kernels::{Kernel, Kernels};
use dkms_engine::site::Site;
use testroot::TestRoot;

/// A machine with a kernel of the package `linux` and these files, each with its text.
pub(crate) fn machine(release: &str, files: &[(&str, &str)]) -> (TestRoot, Site, Kernel) {
    let root = TestRoot::new();
    root.kernel(release).pkgbase("linux");
    files.iter().for_each(|(file, text)| root.write(file, text));
    let site = Site::for_hook(root.path());
    let kernel = Kernels::read(&site.trees).unwrap().all.remove(0);
    (root, site, kernel)
}
