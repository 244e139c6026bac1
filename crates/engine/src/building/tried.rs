//! Settles finished builds: confirms their records, or records their failures.

use std::collections::BTreeMap;
use std::fs;

use super::Build;
use crate::dkms_tree::{Inputs, Inventory, KnownFailure, Record};
use crate::failure::Failure;
use crate::os::digest::Digest;
use crate::os::durable::{self, Durability};
use crate::os::walk::{self, Walk};

/// The mode of a build: alone, or beside builds of the module for other kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// No other build of the module runs at the same time.
    Only,
    /// Other builds of the module may run at the same time. Until the build is accepted, its record
    /// on disk matches no source, so that the next run repeats the build if this run is killed.
    Beside,
    /// The build has run beside another one and is now repeated while no other build of the module
    /// runs.
    Alone,
}

/// A build that has ended.
#[derive(Debug)]
pub(crate) struct Tried {
    pub result: Result<Box<Record>, Failure>,
    /// The fingerprint of the inputs. `None` if nothing was compiled, or if the build has already
    /// been [settled](Build::settle).
    pub inputs: Option<Digest>,
    /// Whether the source or the headers changed after the plan was made. The build may then mix
    /// old and new files, so it is not cached, and the next run builds the module again.
    pub used_others: bool,
    /// The programs on which a failure may depend, as in [`KnownFailure::programs`].
    pub programs: BTreeMap<String, String>,
    /// Whether a file or directory of the module's source changed during the build. False if an
    /// installation for another kernel may have made the change.
    pub source_changed: bool,
}

impl Tried {
    /// Returns a build that need not be settled.
    pub(crate) fn settled(result: Result<Box<Record>, Failure>) -> Self {
        Self {
            result,
            inputs: None,
            used_others: false,
            programs: BTreeMap::new(),
            source_changed: false,
        }
    }

    /// Returns a build whose result is discarded because the run was asked to stop.
    pub(crate) fn interrupted() -> Self {
        let inputs = Some(Digest::of_bytes(b""));
        Self { inputs, ..Self::failed(Failure::transient(1, "interrupted")) }
    }

    /// Returns true if nothing was compiled, because the build is from the cache. Always false for
    /// a failure.
    pub(crate) fn is_restored(&self) -> bool {
        self.inputs.is_none() && self.result.is_ok()
    }

    /// Returns a build that failed before its inputs were read.
    pub(crate) fn failed(failure: Failure) -> Self {
        Self::settled(Err(failure))
    }
}

/// Returns `record` with a digest that matches no source, so that the next run rebuilds the module.
pub(super) fn unproven(record: &Record) -> Record {
    let source = Digest::of_bytes(b"the build has not ended");
    Record { inputs: Inputs { source, ..record.inputs.clone() }, ..record.clone() }
}

impl Build<'_> {
    /// Confirms a successful build and stores it in the cache, or records a failure. Returns the
    /// result of the build.
    pub(crate) fn settle(&self, tried: Tried) -> Result<Box<Record>, Failure> {
        let Tried { result, inputs: Some(inputs), used_others, programs, source_changed } = tried
        else {
            return tried.result;
        };
        match result {
            Ok(mut record) => {
                self.workplace.clear()?;
                record.changes_source = source_changed;
                if used_others {
                    *record = unproven(&record);
                }
                if used_others || source_changed || self.attempt == Attempt::Beside {
                    record.write_with(&self.record_path(), Durability::Content)?;
                }
                self.forget_failure()?;
                if !used_others {
                    self.keep_in_cache(&record);
                }
                Ok(record)
            }
            Err(failed) => {
                self.remove_unproven();
                self.remember(&failed, inputs, programs);
                Err(failed)
            }
        }
    }

    fn remember(&self, failed: &Failure, inputs: Digest, programs: BTreeMap<String, String>) {
        let Self { machine, id, kernel, .. } = self;
        let file = KnownFailure::path(&machine.trees, id, &kernel.release, &machine.arch);
        if machine.tools.stop.asked().is_some() {
            let _ = self.workplace.clear();
            if !file.exists() {
                let _ = durable::remove_file_if_there(&self.log());
            }
            return;
        }
        let _alone = self.alone();
        let mut written = vec![self.keep_files(failed)];
        // A known failure of the module itself would recur, so a transient failure does not replace
        // it.
        let is_outweighed = failed.transient
            && KnownFailure::read(&file)
                .is_some_and(|known| !known.transient && known.fingerprint == inputs);
        if !is_outweighed {
            let known = KnownFailure {
                fingerprint: inputs,
                transient: failed.transient,
                what: failed.cause.clone().unwrap_or_else(|| failed.message.clone()),
                log: self.log(),
                programs,
            };
            match known.write(&file) {
                // The disk may be full.
                Err(error) if failed.transient => log::info!("{error}"),
                other => written.push(other),
            }
        }
        for error in written.into_iter().filter_map(Result::err) {
            log::warn!("{error}");
        }
    }

    /// Removes the objects of an earlier attempt whose record was never confirmed, unless the
    /// module is installed.
    fn remove_unproven(&self) {
        let Self { machine, id, kernel, .. } = self;
        let Some(record) = Record::read(&self.record_path()) else { return };
        let is_proven = record.inputs.source != unproven(&record).inputs.source;
        let inventory = Inventory::read(&machine.trees, &kernel.release);
        if is_proven || inventory.of(id).next().is_some() {
            return;
        }
        let built = machine.trees.built(id, &kernel.release, &machine.arch);
        if let Err(error) = durable::remove_tree(&built) {
            log::warn!("{error}");
        }
        // An empty directory `K` would look like a build for the kernel.
        let _ = built.parent().map(fs::remove_dir);
    }

    fn record_path(&self) -> std::path::PathBuf {
        Record::path(&self.machine.trees, self.id, &self.kernel.release, &self.machine.arch)
    }

    /// Returns the stat signatures of the files and of the directories in the module's source;
    /// `None` if the source cannot be read.
    ///
    /// The directories are included because a build that removes the files that it has written
    /// changes only directories.
    pub(super) fn source_signature(&self) -> Option<(Digest, Digest)> {
        let parts = walk::whole(&self.source().ok()?);
        let walk = Walk::over(&parts).ok()?;
        let dirs = walk::signature_of_watched(&parts, &walk.watched(), 0);
        Some((walk.signature().0, dirs.0))
    }
}
