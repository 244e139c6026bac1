//! Checks and finishes the objects that make has produced, and collects them for the dkms tree.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::working_copy::copy_file;
use super::{Build, Prepared};
use crate::conf::{BUILD, ConfObject};
use crate::dkms_tree::{BuiltObject, FILE_NAME};
use crate::failure::Failure;
use crate::machine::Placement;
use crate::objects::{Compression, FinishError, ObjectName, Strip, Workbench, read_modinfo};
use crate::os::digest::Digest;
use crate::os::durable::{self, Durability, FileError};
use crate::os::symlinks;
use crate::report::Phase;
use crate::signing;

/// An object that make has produced, and the settings for it in dkms.conf.
pub(super) struct Product {
    file: PathBuf,
    name: String,
    location: String,
    strip: bool,
}

impl Build<'_> {
    /// Returns the objects that dkms.conf lists for this kernel, except those in `known`. Returns a
    /// failure if one of them does not exist or was built for another kernel.
    pub(super) fn check_objects(
        &self,
        prepared: &Prepared,
        known: &[BuiltObject],
    ) -> Result<Vec<Product>, Failure> {
        (self.report)(Phase::Checking);
        let release = &self.kernel.release;
        let mut products = Vec::new();
        let records = prepared.conf.records.iter().zip(&prepared.excluded.records);
        let is_known = |entry: &ConfObject| known.iter().any(|object| is_object_of(entry, object));
        for (entry, _) in records.filter(|(entry, excluded)| excluded.is_none() && !is_known(entry))
        {
            let file = self.built_dir(entry).join(format!("{}.ko", entry.built_name));
            let target = self.target_of(&file)?;
            if !target.is_file() {
                let object = file.strip_prefix(&self.workplace.real).unwrap_or(&file);
                return Err(self.failed(7, &self.not_produced(&entry.built_name, object)));
            }
            let info = read_modinfo(&target).map_err(|error| self.failed(7, &error.to_string()))?;
            match info.vermagic_release() {
                Some(found) if found == release.as_str() => {}
                found => {
                    return Err(self.failed(
                        7,
                        &format!(
                            "{}.ko: built for kernel {} instead of {release}: the module's \
                             Makefile does not use the headers in {}",
                            entry.built_name,
                            found.unwrap_or("(unknown)"),
                            prepared.headers.display()
                        ),
                    ));
                }
            }
            products.push(Product {
                file: target,
                name: entry.dest_name.clone(),
                location: entry.dest_location.clone(),
                strip: entry.strip,
            });
        }
        Ok(products)
    }

    /// Returns the message for an object that dkms.conf lists but make did not produce. Names the
    /// paths at which objects of that name were found or, if there are none, the paths of other
    /// objects.
    fn not_produced(&self, name: &str, object: &Path) -> String {
        const SHOWN: usize = 3;
        let built = walkdir::WalkDir::new(&self.workplace.real).sort_by_file_name().into_iter();
        let built: Vec<PathBuf> = built
            .filter_map(|entry| Some(entry.ok()?.into_path()))
            .filter(|path| path.extension().is_some_and(|end| end == "ko") && path.is_file())
            .filter_map(|path| Some(path.strip_prefix(&self.workplace.real).ok()?.to_owned()))
            .collect();
        let same_name = |path: &&PathBuf| path.file_name() == object.file_name();
        let same: Vec<&PathBuf> = built.iter().filter(same_name).collect();
        let found = if same.is_empty() { built.iter().collect() } else { same };
        let found: Vec<String> =
            found.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
        let found = match found.as_slice() {
            [] => "no .ko file was built".to_owned(),
            found => format!("found {}", found.join(", ")),
        };
        format!(
            "make succeeded but did not produce {name}.ko (listed in dkms.conf): expected {} in {}, \
             {found}",
            object.display(),
            self.workplace.seen.display()
        )
    }

    /// Returns the file to which the object `file` leads if it is a symbolic link. A link to a path
    /// in `T/M/V/build` leads to the real build directory.
    ///
    /// # Errors
    /// [`Failure`] with dkms's exit code 7 if the link leads out of `T/M/V`.
    fn target_of(&self, file: &Path) -> Result<PathBuf, Failure> {
        let (real, seen) = (&self.workplace.real, &self.workplace.seen);
        let mut target = file.to_owned();
        for _ in 0..symlinks::MAX_LINKS {
            let Ok(text) = fs::read_link(&target) else { break };
            target = match text.strip_prefix(seen) {
                Ok(inside) => real.join(inside),
                Err(_) => target.with_file_name(text),
            };
        }
        if target == file {
            return Ok(target);
        }
        // The caller reports a target that does not exist.
        let Ok(found) = target.canonicalize() else { return Ok(target) };
        let is_inside = |dir: &Path| dir.canonicalize().is_ok_and(|dir| found.starts_with(dir));
        if is_inside(real) || is_inside(&self.machine.trees.version(self.id)) {
            return Ok(target);
        }
        let name = file.file_name().unwrap_or_default().display();
        let target = target.display();
        let why = format!("{name}: a link to {target}, which is outside of the build directory");
        Err(self.failed(7, &why))
    }

    /// Returns the directory of the object that `entry` describes. The module sees its build
    /// directory as `T/M/V/build`, but the real path is usually different.
    fn built_dir(&self, entry: &ConfObject) -> PathBuf {
        match entry.built_location.strip_prefix(BUILD) {
            Ok(inside) => self.workplace.real.join(inside),
            Err(_) => self.machine.trees.version(self.id).join(&entry.built_location),
        }
    }

    /// Fills the directory `staging`, which later becomes `K/A`, with the finished objects, the log
    /// and the record.
    pub(super) fn stage(
        &self,
        prepared: &mut Prepared,
        products: &[Product],
        staging: &Path,
        started: Instant,
        log: &Path,
    ) -> Result<(), Failure> {
        let module = staging.join("module");
        durable::create_dirs(&module)?;
        durable::create_dirs(&staging.join("log"))?;
        let all_signed = self.finish(prepared, products, &module)?;
        prepared.record.signing = self.certificate().filter(|_| all_signed);
        let symvers = self.workplace.real.join("Module.symvers");
        if symvers.is_file() {
            copy_file(&symvers, &module.join("Module.symvers"))?;
        }
        copy_file(log, &staging.join("log/make.log"))?;
        self.note_dependencies(prepared, staging)?;
        prepared.record.build_seconds = started.elapsed().as_secs();
        // The record is synced at the end of the run. Until then, the installation is pending.
        prepared.record.write_with(&staging.join(FILE_NAME), Durability::None)?;
        fs::set_permissions(staging, fs::Permissions::from_mode(0o755))
            .map_err(FileError::when("set the mode of", staging))?;
        Ok(())
    }

    /// Strips, signs and compresses `products`, stores them in the directory `module` and adds them
    /// to the record. Returns false if one of them should be signed but cannot be.
    pub(super) fn finish(
        &self,
        prepared: &mut Prepared,
        products: &[Product],
        module: &Path,
    ) -> Result<bool, Failure> {
        (self.report)(Phase::Finishing);
        let placement = self.placement()?;
        let options = self.machine.settings.compression_options();
        let signer = signing::signer(self.machine, self.kernel);
        let workbench = Workbench {
            tools: &self.machine.tools,
            env: &prepared.env,
            options: &options,
            signer: signer.as_ref(),
        };
        let strip =
            if prepared.env.get("CC") == Some("clang".as_ref()) { Strip::Llvm } else { Strip::Gnu };
        let compression = self.machine.compression(self.kernel);
        let mut all_signed = true;
        for product in products {
            let location = location(&placement, &product.location)?;
            let strip = if product.strip { strip } else { Strip::No };
            let finished = workbench
                .finish(&product.file, module, &product.name, strip, compression)
                .map_err(finish_failed)?;
            for note in &finished.notes {
                log::warn!("{}: {note}", self.id);
            }
            if let Some(reason) = &finished.unsigned {
                signing::warn(self.machine, self.kernel, &finished.name, reason);
                all_signed = false;
            }
            File::open(&finished.path)
                .and_then(|file| file.sync_all())
                .map_err(FileError::when("write", &finished.path))?;
            prepared.record.objects.push(BuiltObject {
                name: finished.name.to_string(),
                digest: Digest::of_file(&finished.path)?,
                location,
                // `check_objects` has read the object.
                built_for: Some(self.kernel.release.to_string()),
            });
        }
        Ok(all_signed)
    }

    /// Returns the digest of the certificate with which objects for the kernel are signed.
    fn certificate(&self) -> Option<Digest> {
        signing::signer(self.machine, self.kernel).and_then(|signer| signer.certificate())
    }

    /// Brings the record in line with dkms.conf, whose values POST_BUILD has changed. Takes new
    /// objects from the directory `module`, where POST_BUILD may have put them, or else from the
    /// build directory.
    pub(super) fn match_objects(
        &self,
        prepared: &mut Prepared,
        module: &Path,
    ) -> Result<(), Failure> {
        let mut objects = std::mem::take(&mut prepared.record.objects);
        let records = prepared.conf.records.iter().zip(&prepared.excluded.records);
        let listed: Vec<_> = records.filter(|(_, excluded)| excluded.is_none()).collect();
        let is_listed =
            |object: &BuiltObject| listed.iter().any(|(entry, _)| is_object_of(entry, object));
        objects.retain(is_listed);
        let placement = self.placement()?;
        for (entry, _) in &listed {
            if objects.iter().any(|object| is_object_of(entry, object)) {
                continue;
            }
            let names = Compression::ALL.map(|it| format!("{}{}", entry.dest_name, it.suffix()));
            let Some(name) = names.into_iter().find(|name| module.join(name).is_file()) else {
                continue;
            };
            objects.push(BuiltObject {
                digest: Digest::of_file(&module.join(&name))?,
                location: location(&placement, &entry.dest_location)?,
                built_for: None,
                name,
            });
        }
        let products = self.check_objects(prepared, &objects)?;
        prepared.record.objects = objects;
        if !self.finish(prepared, &products, module)? {
            prepared.record.signing = None;
        }
        Ok(())
    }

    fn placement(&self) -> Result<Placement, Failure> {
        let placement = self.machine.placement();
        placement.map_err(|error| Failure::transient(4, error.to_string()))
    }
}

/// Returns true if `object` is the object that `entry` of a dkms.conf describes.
fn is_object_of(entry: &ConfObject, object: &BuiltObject) -> bool {
    ObjectName::parse(&object.name).is_some_and(|name| name.module == entry.dest_name)
}

/// Returns the directory for an object whose DEST_MODULE_LOCATION is `wanted`.
fn location(placement: &Placement, wanted: &str) -> Result<String, Failure> {
    let location = placement.directory(wanted);
    let location = location.map_err(|error| Failure::new(8, error.to_string()))?;
    Ok(location.to_string_lossy().into())
}

fn finish_failed(error: FinishError) -> Failure {
    match error {
        FinishError::File(error) => error.into(),
        error @ FinishError::Unpack { .. } => Failure::new(7, error.to_string()),
    }
}
