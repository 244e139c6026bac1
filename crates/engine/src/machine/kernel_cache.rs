//! Caches the configuration and the object compression of each kernel for one run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{Kernel, KernelConfig, Trees, compression};
use crate::names::KernelRelease;
use crate::objects::Compression;
use crate::os::shared::lock;

/// The configuration and the compression of each kernel, read on first use.
#[derive(Debug, Default)]
pub(super) struct KernelCache {
    configs: Mutex<BTreeMap<PathBuf, Option<Arc<KernelConfig>>>>,
    compressions: Mutex<BTreeMap<KernelRelease, Compression>>,
}

impl KernelCache {
    pub(super) fn config(&self, kernel: &Kernel) -> Option<Arc<KernelConfig>> {
        let read = |file: &PathBuf| KernelConfig::read(file).ok().map(Arc::new);
        lock(&self.configs).entry(kernel.config_file()?).or_insert_with_key(read).clone()
    }

    pub(super) fn compression(&self, trees: &Trees, kernel: &Kernel) -> Compression {
        let mut known = lock(&self.compressions);
        let detect = || compression::of_kernel(trees, kernel);
        *known.entry(kernel.release.clone()).or_insert_with(detect)
    }

    /// Sets the compression, even if it has been detected before.
    pub(super) fn set_compression(&self, kernel: &KernelRelease, compression: Compression) {
        lock(&self.compressions).insert(kernel.clone(), compression);
    }
}
