//! Modules and kernels with the names of their packages.

use std::collections::BTreeMap;

use dkms_engine::facts::Facts;
use dkms_engine::names::{KernelRelease, ModuleId};

use crate::package_query::Packages;

/// The packages of modules and kernels.
#[derive(Debug, Clone, Default)]
pub struct PackageNames {
    packages: Packages,
    sources: BTreeMap<ModuleId, String>,
}

impl PackageNames {
    /// Combines the packages from alpm-query with the source directories of the modules.
    #[must_use]
    pub fn new(packages: Packages, facts: &Facts) -> Self {
        let sources =
            facts.modules.iter().map(|(id, module)| (id.clone(), module.source_dir.clone()));
        Self { packages, sources: sources.collect() }
    }

    /// Returns `zfs 2.4.4 (zfs-dkms 2.4.4-1)`, or only the module if the package is unknown.
    #[must_use]
    pub fn module(&self, id: &ModuleId) -> String {
        let dir = self.sources.get(id).cloned().unwrap_or_else(|| id.source_dir());
        match self.packages.of_source(&dir) {
            Some(package) => format!("{} ({package})", plain(id)),
            None => plain(id),
        }
    }

    /// Returns `7.2.13-arch1-1 (linux)`, or only the release if the package is unknown.
    #[must_use]
    pub fn kernel(&self, kernel: &KernelRelease) -> String {
        match self.packages.of_kernel(kernel) {
            Some(package) => format!("{kernel} ({})", package.name),
            None => kernel.to_string(),
        }
    }

    /// Returns the package to install for a kernel's headers.
    #[must_use]
    pub fn headers_package(&self, kernel: &KernelRelease) -> Option<&str> {
        self.packages.headers_package(kernel)
    }
}

/// Returns `zfs 2.4.4`, in pacman's notation.
pub(super) fn plain(id: &ModuleId) -> String {
    format!("{} {}", id.name, id.version)
}
