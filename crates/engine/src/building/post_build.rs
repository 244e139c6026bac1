//! Publishes a finished build and runs POST_BUILD, a script that may change or reject the build.

use std::fs;
use std::path::{Path, PathBuf};

use super::tried::unproven;
use super::working_copy::copy_file;
use super::{Attempt, Build, Prepared};
use crate::building::make_log::MakeLog;
use crate::conf::Confs;
use crate::dkms_tree::{FILE_NAME, Record, STAGING, detach_links, publish};
use crate::failure::Failure;
use crate::os::copy_tree;
use crate::os::digest::Digest;
use crate::os::durable::{self, Durability, FileError};

impl Build<'_> {
    /// Publishes `staging` as the build of the module, runs POST_BUILD, and returns the record of
    /// the build. Restores the previous build if POST_BUILD fails.
    pub(super) fn publish(
        &self,
        staging: &Path,
        mut prepared: Prepared,
        confs: &Confs<'_>,
        log: &mut MakeLog,
    ) -> Result<Record, Failure> {
        let place = self.machine.trees.built(self.id, &self.kernel.release, &self.machine.arch);
        detach_links(self.machine, self.id, &self.kernel.release)?;
        let Some(script) = prepared.conf.scripts.post_build.clone() else {
            if self.attempt == Attempt::Beside {
                let file = staging.join(FILE_NAME);
                unproven(&prepared.record).write_with(&file, Durability::Content)?;
            }
            publish(staging, &place)?;
            return Ok(prepared.record);
        };
        let now = &prepared.record;
        // If the run is killed here, this record makes the next run rebuild.
        unproven(now).write_with(&staging.join(FILE_NAME), Durability::Content)?;

        let before = set_aside(&place)?;
        let ended = publish(staging, &place).map_err(Failure::from).and_then(|()| {
            self.script("POST_BUILD", Some(&script), &prepared.env, log)?;
            if self.read_conf_again(&mut prepared, confs)? {
                self.match_objects(&mut prepared, &place.join("module"))?;
            }
            self.accept(prepared.record, &place, log)
        });
        if ended.is_err() {
            durable::remove_tree(&place)?;
        }
        match (before, &ended) {
            (Some(before), Err(_)) => publish(&before, &place)?,
            (Some(before), Ok(_)) => _ = durable::remove_tree(&before)?,
            (None, Err(_)) => _ = place.parent().map(fs::remove_dir),
            (None, Ok(_)) => {}
        }
        ended
    }

    /// Updates the record after POST_BUILD, since some scripts sign or replace objects. Returns a
    /// failure if POST_BUILD removed an object.
    fn accept(&self, mut record: Record, place: &Path, log: &MakeLog) -> Result<Record, Failure> {
        for object in &mut record.objects {
            let file = place.join("module").join(&object.name);
            let digest = Digest::of_file(&file).map_err(|error| {
                self.failed(7, &format!("POST_BUILD script removed an object: {error}"))
            })?;
            if digest != object.digest {
                object.built_for = None;
            }
            object.digest = digest;
        }
        copy_file(log.path(), &place.join("log/make.log"))?;
        let proven = if self.attempt == Attempt::Beside { &unproven(&record) } else { &record };
        proven.write_with(&place.join(FILE_NAME), Durability::Content)?;
        Ok(record)
    }

    /// Writes the versions of the dependencies to `.dep_*` files for dkms (dkms-behaviour 3.7).
    pub(super) fn note_dependencies(
        &self,
        prepared: &Prepared,
        staging: &Path,
    ) -> Result<(), FileError> {
        for (name, version) in &prepared.dependencies {
            let file = staging.join(format!(".dep_{name}"));
            durable::write(&file, format!("{version}\n").as_bytes())?;
        }
        Ok(())
    }
}

/// Moves the build at `place` to a staging directory, and returns the path of that directory.
/// Returns `None` if there is no build.
///
/// If the run is killed, a later run deletes the staging directory.
fn set_aside(place: &Path) -> Result<Option<PathBuf>, FileError> {
    let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else { return Ok(None) };
    if !place.is_dir() {
        return Ok(None);
    }
    let aside = parent.join(format!("{}{}_before", STAGING, name.display()));
    if fs::rename(place, &aside).is_err() {
        // overlayfs cannot rename every directory.
        copy_tree::copy_tree(place, &aside)?;
    }
    Ok(Some(aside))
}
