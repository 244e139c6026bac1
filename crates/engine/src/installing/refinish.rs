//! Recompresses stored objects or signs them again, without a rebuild, when the kernel's
//! compression or the signing key has changed.

use std::fs;
use std::path::Path;

use crate::dkms_tree::detach_links;
use crate::failure::Failure;
use crate::installing::BuiltModule;
use crate::machine::Kernel;
use crate::objects::{Compression, FinishError, FinishedObject, ObjectName, Workbench};
use crate::os::digest::Digest;
use crate::os::durable::{self, FileError};
use crate::signing;

/// Converts the stored objects of a module to the compression of the kernel, and signs them again
/// if the signing key has changed.
///
/// Does nothing if the module has no record or the kernel is not installed. Writes the new files
/// first, then the record, and removes the old files last, so that a crash can leave superfluous
/// files but cannot lose any.
///
/// # Errors
/// [`Failure`] if an object cannot be read or stored.
pub(crate) fn refinish(built: &mut BuiltModule<'_>, kernel: &Kernel) -> Result<(), Failure> {
    let machine = built.machine;
    let dir = machine.trees.built(built.id, &kernel.release, &machine.arch);
    let Some(record) = built.record().filter(|_| kernel.alive) else { return Ok(()) };
    let compression = machine.compression(kernel);
    let certificate = signing::certificate(machine, kernel);
    let other_key = certificate.is_some() && certificate != record.signing;
    let signer = signing::signer(machine, kernel).filter(|_| other_key);
    let options = machine.settings.compression_options();
    let workbench = Workbench {
        tools: &machine.tools,
        env: &machine.env,
        options: &options,
        signer: signer.as_ref(),
    };
    let mut old = Vec::new();
    let mut objects = record.objects.clone();
    let mut all_signed = true;
    for object in &mut objects {
        let stored = dir.join("module").join(&object.name);
        let Some(name) = ObjectName::parse(&object.name) else { continue };
        if name.compression == compression && signer.is_none() {
            continue;
        }
        let staging = tempfile::Builder::new()
            .prefix(durable::UNFINISHED)
            .tempdir_in(&dir)
            .map_err(FileError::when("create a directory in", &dir))?;
        let mut finished = refinished(&workbench, &stored, staging.path(), compression)?;
        if let Some(reason) = &finished.unsigned {
            signing::warn(machine, kernel, &finished.name, reason);
            all_signed = false;
            if name.compression == compression {
                continue;
            }
            // The object keeps the signature that it has.
            let workbench = Workbench { signer: None, ..workbench };
            finished = refinished(&workbench, &stored, staging.path(), compression)?;
        }
        let name = finished.name.to_string();
        if name == object.name && signer.is_none() {
            continue;
        }
        detach_links(machine, built.id, &kernel.release)?;
        let place = dir.join("module").join(&name);
        object.digest = Digest::of_file(&finished.path)?;
        fs::rename(&finished.path, &place).map_err(FileError::when("replace", &place))?;
        if name != object.name {
            object.name = name;
            old.push(stored);
        }
    }
    built.change(|record| {
        record.objects = objects;
        if signer.is_some() && all_signed {
            record.signing = certificate;
        }
    })?;
    for file in old {
        durable::remove_file_if_there(&file)?;
    }
    Ok(())
}

fn refinished(
    workbench: &Workbench<'_>,
    stored: &Path,
    staging: &Path,
    compression: Compression,
) -> Result<FinishedObject, Failure> {
    workbench.refinish(stored, staging, compression).map_err(|error| match error {
        FinishError::File(error) => error.into(),
        error @ FinishError::Unpack { .. } => Failure::new(6, error.to_string()),
    })
}
