//! Displays modules and kernels with their packages.

use std::collections::BTreeMap;

use dkms_engine::facts::Facts;
use dkms_engine::names::{KernelRelease, ModuleId};

use crate::package_query::Packages;

/// The packages of modules and kernels. By default, no package is known.
#[derive(Debug, Clone, Default)]
pub struct PackageNames {
    packages: Packages,
    sources: BTreeMap<ModuleId, String>,
    kernels: BTreeMap<KernelRelease, String>,
}

impl PackageNames {
    /// Combines alpm-query's answer with the source directories of the modules and the packages
    /// of the kernels in `facts`.
    #[must_use]
    pub fn new(packages: Packages, facts: &Facts) -> Self {
        let sources =
            facts.modules.iter().map(|(id, module)| (id.clone(), module.source_dir.clone()));
        let kernels = facts
            .kernels
            .iter()
            .filter_map(|(release, about)| Some((release.clone(), about.kernel.package.clone()?)));
        Self { packages, sources: sources.collect(), kernels: kernels.collect() }
    }

    /// Returns a module with its package, as in `zfs/2.4.4 (zfs-dkms 2.4.4-1)`. If the package is
    /// unknown, returns only the module.
    #[must_use]
    pub fn module(&self, id: &ModuleId) -> String {
        let dir = self.sources.get(id).cloned().unwrap_or_else(|| id.source_dir());
        match self.packages.of_source(&dir) {
            Some(package) => format!("{id} ({package})"),
            None => id.to_string(),
        }
    }

    /// Returns a kernel with its package, as in `7.2.13-arch1-1 (linux)`. Returns only
    /// the release if the kernel's package is unknown.
    #[must_use]
    pub fn kernel(&self, kernel: &KernelRelease) -> String {
        match self.kernels.get(kernel) {
            Some(package) => format!("{kernel} ({package})"),
            None => kernel.to_string(),
        }
    }

    /// Returns the name of the package that contains a kernel's headers; `None` if the package is
    /// unknown. The package need not be installed.
    #[must_use]
    pub fn headers_package(&self, kernel: &KernelRelease) -> Option<&str> {
        self.packages.headers_package(kernel)
    }
}
