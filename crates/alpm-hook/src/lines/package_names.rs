//! Modules and kernels under the names that a pacman user knows them by.

use std::collections::BTreeMap;

use dkms_engine::facts::Facts;
use dkms_engine::names::{KernelRelease, ModuleId};

use crate::package_query::Packages;

/// Which package brought what.
#[derive(Debug, Clone, Default)]
pub struct Names {
    packages: Packages,
    sources: BTreeMap<ModuleId, String>,
}

impl Names {
    /// The packages that alpm-query named, and the source directories of the modules.
    #[must_use]
    pub fn new(packages: Packages, facts: &Facts) -> Self {
        let sources =
            facts.modules.iter().map(|(id, module)| (id.clone(), module.source_dir.clone()));
        Self { packages, sources: sources.collect() }
    }

    /// `zfs 2.4.4 (zfs-dkms 2.4.4-1)`, or without the package if it is not known.
    #[must_use]
    pub fn module(&self, id: &ModuleId) -> String {
        let dir = self.sources.get(id).cloned().unwrap_or_else(|| id.source_dir());
        match self.packages.of_source(&dir) {
            Some(package) => format!("{} ({package})", plain(id)),
            None => plain(id),
        }
    }

    /// `7.2.13-arch1-1 (linux)`, or without the package if it is not known.
    #[must_use]
    pub fn kernel(&self, kernel: &KernelRelease) -> String {
        match self.packages.of_kernel(kernel) {
            Some(package) => format!("{kernel} ({})", package.name),
            None => kernel.to_string(),
        }
    }

    /// The package to install for a kernel's headers, if it is known.
    #[must_use]
    pub fn headers_package(&self, kernel: &KernelRelease) -> Option<&str> {
        self.packages.headers_package(kernel)
    }
}

/// `zfs 2.4.4`, as pacman writes names and versions.
pub(super) fn plain(id: &ModuleId) -> String {
    format!("{} {}", id.name, id.version)
}
