//! Keeps what a run reads once of each kernel: its configuration and its compression.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Kernel, KernelConfig};
use crate::names::KernelRelease;
use crate::objects::Compression;

/// Facts about kernels, read at the first use. Several threads may use them.
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

    pub(super) fn compression(&self, kernel: &Kernel) -> Compression {
        let mut known = lock(&self.compressions);
        *known.entry(kernel.release.clone()).or_insert_with(|| kernel.compression())
    }
}

/// The content. A thread that panicked has left it whole.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
