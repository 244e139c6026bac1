//! Restores builds from the cache, and stores new builds in it.

use super::Build;
use crate::dkms_tree::{BuildCache, CacheKey, FILE_NAME, Record, STAGING, publish, remove_staging};
use crate::facts::Facts;
use crate::failure::Failure;
use crate::os::durable;

impl Build<'_> {
    /// Restores this build from the cache to its directory in the dkms tree and returns its record.
    /// Returns `None` if the cache has no usable entry.
    pub(super) fn take_from_cache(&self, facts: &Facts) -> Result<Option<Record>, Failure> {
        let Self { machine, id, kernel, .. } = self;
        let inputs = facts.pair(id, &kernel.release).and_then(|pair| pair.inputs.clone());
        let Some(mut inputs) = inputs else { return Ok(None) };
        inputs.depends = self.depends.clone();
        let key = CacheKey::of(id, &machine.arch, &inputs);
        let built = machine.trees.built(id, &kernel.release, &machine.arch);
        let parent = machine.trees.version(id).join(&kernel.release);
        durable::create_dirs(&parent)?;
        remove_staging(&parent)?;
        let staging = parent.join(format!("{}{}_cached", STAGING, machine.arch));
        let taken = BuildCache::of(&machine.trees).take(&key, &staging).unwrap_or_else(|error| {
            log::warn!(
                "{id} for {}: cannot restore from the cache; compiling: {error}",
                kernel.release
            );
            false
        });
        let file = staging.join(FILE_NAME);
        let Some(record) = taken.then(|| Record::read(&file)).flatten() else {
            durable::remove_tree(&staging)?;
            // An empty directory `K` would look like a build for the kernel.
            let _ = std::fs::remove_dir(&parent);
            return Ok(None);
        };
        let record = Record { placed: self.placed_before(facts), ..record };
        if !record.placed.is_empty() {
            record.write(&file)?;
        }
        publish(&staging, &built)?;
        self.keep_source()?;
        Ok(Some(record))
    }

    /// Stores the finished build in the cache. A failure only causes a warning, since the build
    /// itself has succeeded.
    pub(super) fn keep_in_cache(&self, record: &Record) {
        let Self { machine, id, kernel, .. } = self;
        let limit = machine.settings.cache_size();
        if limit == 0 {
            return;
        }
        let built = machine.trees.built(id, &kernel.release, &machine.arch);
        if let Err(error) = BuildCache::of(&machine.trees).keep(&built, record, limit) {
            log::warn!("{id} for {}: cannot store in the cache: {error}", kernel.release);
        }
    }
}
