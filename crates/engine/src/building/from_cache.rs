//! Restores builds from the cache, and stores new builds in it.

use std::path::Path;

use super::Build;
use crate::dkms_tree::{
    BuildCache, CacheKey, FILE_NAME, Record, STAGING, detach_links, publish, remove_staging,
};
use crate::facts::Facts;
use crate::failure::Failure;
use crate::machine::Trial;
use crate::os::durable::{self, FileError};
use crate::signing;

impl Build<'_> {
    /// Restores this build from the cache to its directory in the dkms tree and returns its record.
    /// Returns `None` if the cache has no usable entry.
    pub(super) fn take_from_cache(&self, facts: &Facts) -> Result<Option<Record>, Failure> {
        let Self { machine, id, kernel, .. } = self;
        let inputs = facts.pair(id, &kernel.release).and_then(|pair| pair.inputs.clone());
        let Some(mut inputs) = inputs else { return Ok(None) };
        inputs.depends = self.depends.clone();
        let key = CacheKey::of(id, &machine.arch, &inputs, &facts.environment);
        let built = machine.trees.built(id, &kernel.release, &machine.arch);
        let parent = machine.trees.version(id).join(&kernel.release);
        durable::create_dirs(&parent)?;
        remove_staging(&parent)?;
        let staging = parent.join(format!("{}{}_cached", STAGING, machine.arch));
        let taken = self.restore(&key, &staging).unwrap_or_else(|error| {
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
        // Keep the source before publishing the build, because a later run that finds the build
        // published does not keep the source.
        self.keep_source()?;
        detach_links(machine, id, &kernel.release)?;
        publish(&staging, &built)?;
        Ok(Some(record))
    }

    /// Restores the build with the key `key` to the directory `to`. Returns false if the cache does
    /// not contain it.
    fn restore(&self, key: &CacheKey, to: &Path) -> Result<bool, FileError> {
        let trial = self.machine.trial.as_ref();
        let _lock = trial.map(Trial::lock_cache).transpose()?;
        let taken = BuildCache::of(&self.machine.trees).take(key, to)?;
        if taken && trial.is_some() {
            self.pin(key);
        }
        Ok(taken)
    }

    /// Stores the finished build in the cache, unless it [has other effects](has_other_effects) or
    /// depends on [something](Self::differs_from_real) that a trial run has left out. A failure
    /// only causes a warning, since the build itself has succeeded.
    pub(super) fn keep_in_cache(&self, record: &Record) {
        let Self { machine, id, kernel, .. } = self;
        let limit = match &machine.trial {
            Some(_) => u64::MAX,
            None => machine.settings.cache_size(),
        };
        if limit == 0 || has_other_effects(record) || self.differs_from_real() {
            return;
        }
        match (self.store(record, limit), &machine.trial) {
            (Ok(()), _) => {}
            (Err(error), Some(trial)) => trial.cannot_store(error.to_string()),
            (Err(error), None) => {
                log::warn!("{id} for {}: cannot store in the cache: {error}", kernel.release);
            }
        }
    }

    /// Stores the finished build if it is not larger than `limit` bytes.
    fn store(&self, record: &Record, limit: u64) -> Result<(), FileError> {
        let Self { machine, id, kernel, .. } = self;
        let _lock = machine.trial.as_ref().map(Trial::lock_cache).transpose()?;
        let built = machine.trees.built(id, &kernel.release, &machine.arch);
        let environment = machine.build_environment();
        BuildCache::of(&machine.trees).keep(&built, record, &environment, limit)?;
        if machine.trial.is_some() {
            self.pin(&CacheKey::of(id, &machine.arch, &record.inputs, &environment));
        }
        Ok(())
    }

    /// Pins the entry with this key, so that the run after the transaction finds it.
    fn pin(&self, key: &CacheKey) {
        let Self { machine, id, kernel, .. } = self;
        if let Err(error) = BuildCache::of(&machine.trees).pin(key) {
            log::warn!("{id} for {}: may be evicted from the cache: {error}", kernel.release);
        }
    }

    /// Returns true if this is a trial run and its objects may differ from those of the run after
    /// the transaction, because the trial run left out a script or has no signing key.
    fn differs_from_real(&self) -> bool {
        let Self { machine, id, kernel, .. } = self;
        machine.trial.as_ref().is_some_and(|trial| {
            trial.left_out_scripts_of(id, &kernel.release) || signing::awaits_key(machine, kernel)
        })
    }
}

/// Returns true if the build may have changed files outside its directories in the dkms tree.
/// POST_REMOVE or the removal of the kernel may have undone these changes, and restoring the build
/// from the cache would not repeat them.
///
/// POST_BUILD may write anywhere. It cannot run for a restored build, because it often needs files
/// from the build directory. If the module has a PRE_BUILD script, POST_REMOVE may undo its
/// changes. If it has none, POST_REMOVE presumably undoes the changes of the [`COUNTERPARTS`]. If
/// it has none of those either, POST_REMOVE may undo changes by make.
fn has_other_effects(record: &Record) -> bool {
    let is_set = |directive| record.values.text(directive, 0).is_some();
    let undoes_build =
        is_set("POST_REMOVE") && (is_set("PRE_BUILD") || !COUNTERPARTS.into_iter().any(is_set));
    let adds_files = is_set("POST_BUILD") && !only_adds_to_build(record);
    record.changes_source || adds_files || undoes_build
}

/// The scripts whose changes POST_REMOVE usually undoes. These scripts also run for builds from the
/// cache.
const COUNTERPARTS: [&str; 3] = ["POST_ADD", "PRE_INSTALL", "POST_INSTALL"];

/// Returns true if POST_BUILD is the script of OpenZFS, which copies files from the build directory
/// to `T/M/V/K/A` and changes nothing else. Caching these builds saves minutes of compiling.
fn only_adds_to_build(record: &Record) -> bool {
    let script =
        record.values.text("POST_BUILD", 0).and_then(|text| text.split_whitespace().next());
    record.module.name.as_str() == "zfs" && script == Some("scripts/dkms.postbuild")
}
