//! Reads the existing build of a module for a kernel, and the inputs of a new build.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Survey;
use crate::conf::{ConfRequest, EvaluatedConf};
use crate::dkms_tree::{Inputs, KnownFailure, Record, RefusedObject};
use crate::facts::{ConfFacts, KernelFacts, ModuleFacts, Pair, SourcePlace};
use crate::failure::Failure;
use crate::machine::{Kernel, Machine};
use crate::names::{KernelRelease, ModuleId};
use crate::objects::{Compression, ObjectName};
use crate::os::digest::Digest;
use crate::os::symlinks;
use crate::signing;

impl Survey<'_> {
    /// Adds the facts about each module for each kernel to `modules`.
    pub(super) fn pairs(
        &mut self,
        modules: &mut BTreeMap<ModuleId, ModuleFacts>,
        kernels: &BTreeMap<KernelRelease, KernelFacts>,
    ) {
        let mut requests = Vec::new();
        for (id, module) in modules.iter_mut() {
            self.pairs_of(id, module, kernels, &mut requests);
        }
        let results = self.confs.evaluate_all(&requests);
        for (ConfRequest { id, kernel, .. }, result) in requests.iter().zip(results) {
            let module = modules.get_mut(id);
            if let Some(pair) = module.and_then(|module| module.pairs.get_mut(&kernel.release)) {
                self.store_conf(result, kernel, pair);
            }
        }
    }

    fn pairs_of<'k>(
        &mut self,
        id: &ModuleId,
        module: &mut ModuleFacts,
        kernels: &'k BTreeMap<KernelRelease, KernelFacts>,
        requests: &mut Vec<ConfRequest<'k>>,
    ) {
        let covered = kernels.keys().filter(|kernel| self.scope.covers(kernel));
        let releases: BTreeSet<KernelRelease> =
            covered.chain(module.pairs.keys()).cloned().collect();
        let source = self.source_of(id, module);
        for release in releases {
            let mut pair = module.pairs.remove(&release).unwrap_or_default();
            let kernel = kernels.get(&release);
            self.read_build(id, &release, kernel, &mut pair);
            if module.source != SourcePlace::Missing
                && self.scope.covers(&release)
                && let Some(kernel) = kernel
            {
                requests.extend(self.read_inputs(id, &source, kernel, &mut pair));
            }
            module.pairs.insert(release, pair);
        }
    }

    fn read_build(
        &mut self,
        id: &ModuleId,
        release: &KernelRelease,
        kernel: Option<&KernelFacts>,
        pair: &mut Pair,
    ) {
        let machine = self.machine;
        let (trees, arch) = (&machine.trees, &machine.arch);
        pair.failure = KnownFailure::read(&KnownFailure::path(trees, id, release, arch))
            .filter(|failure| !failure.transient && failure.is_current(self.machine));
        let Some(built) = &mut pair.built else { return };
        built.record = Record::read(&Record::path(trees, id, release, arch));
        built.in_place = true;
        if let Some(record) = &built.record {
            let dir = trees.kernel(release);
            let refused = refused(self.machine, id, &dir, record);
            built.in_place = self.is_in_place(id, release, record, &refused, built.installed);
            let declined = !refused.is_empty() && refused.len() == record.objects.len();
            built.declined = declined.then(|| RefusedObject::reasons(&refused));
            let compression = kernel
                .filter(|k| k.kernel.alive)
                .map(|about| self.machine.compression(&about.kernel));
            // Uncompressed objects are left alone: their compression failed, and every kernel can
            // load them.
            let other =
                |found: Compression| found != Compression::None && compression != Some(found);
            built.other_compression = compression.is_some()
                && record
                    .objects
                    .iter()
                    .filter_map(|object| ObjectName::parse(&object.name))
                    .any(|name| other(name.compression));
            if let Some(kernel) = kernel.filter(|k| k.kernel.alive && k.has_headers()) {
                let known = self.keys.entry(release.clone());
                let key =
                    *known.or_insert_with(|| signing::certificate(self.machine, &kernel.kernel));
                built.other_key = key.is_some() && key != record.signing;
            }
            let is_installed_again = !built.in_place
                || built.other_compression
                || built.other_key
                || machine.options.force_install;
            built.damaged = is_installed_again && self.is_damaged(id, record);
        } else if let Some(headers) = kernel.and_then(|k| k.kernel.headers.as_ref()) {
            let module = trees.built(id, release, arch).join("module");
            let conf = trees.source_link(id).join("dkms.conf");
            let conf = symlinks::resolve(&trees.root, &conf).unwrap_or(conf);
            let inputs = [conf, headers.join("Module.symvers"), headers.join(".config")];
            built.outdated = is_older(&module, &inputs);
        }
    }

    /// Adds the inputs of a new build to `pair`.
    ///
    /// If the existing build's record is still valid, takes the values of dkms.conf from the record
    /// and returns `None`. Otherwise returns a request to evaluate the dkms.conf, or `None` if the
    /// scope excludes the module.
    fn read_inputs<'k>(
        &mut self,
        id: &ModuleId,
        source: &Path,
        kernel: &'k KernelFacts,
        pair: &mut Pair,
    ) -> Option<ConfRequest<'k>> {
        let inputs = kernel.inputs.as_ref().and_then(|identity| {
            Some(Inputs {
                source: self.source_digest(id, source)?,
                overrides: self.overrides_digest(id),
                conf: Digest::of_bytes(b""),
                kernel: identity.clone(),
                depends: BTreeMap::new(),
            })
        });
        let recorded = pair.built.as_ref().and_then(|built| built.record.as_ref());
        let still_good = |record: &&Record| {
            inputs.as_ref().is_some_and(|now| {
                now.source == record.inputs.source
                    && now.overrides == record.inputs.overrides
                    && now.kernel == record.inputs.kernel
            })
        };
        let as_recorded = |_: &&Record| {
            !self.machine.options.changes_conf_of(id) && !self.machine.has_directives()
        };
        let recorded = recorded.filter(as_recorded).filter(still_good);
        let source = source.to_owned();
        match recorded.map(|record| record.values.clone()) {
            Some(values) => {
                pair.inputs = inputs;
                let evaluated =
                    EvaluatedConf { source, is_fresh: false, values, deprecated: Vec::new() };
                self.store_conf(Ok(evaluated), &kernel.kernel, pair);
                None
            }
            None if self.scope.evaluates(id) => {
                pair.inputs = inputs;
                Some(ConfRequest { id: id.clone(), kernel: &kernel.kernel, source })
            }
            None => None,
        }
    }

    /// Stores the evaluated dkms.conf in `pair`, or the failure to evaluate it.
    fn store_conf(
        &mut self,
        evaluated: Result<EvaluatedConf, Failure>,
        kernel: &Kernel,
        pair: &mut Pair,
    ) {
        let facts = evaluated.and_then(|evaluated| {
            let conf = self.confs.interpret(kernel, &evaluated.source, &evaluated.values)?;
            let excluded = self.confs.excluded(&conf, kernel);
            let facts = ConfFacts {
                excluded: excluded.whole().map(ToString::to_string),
                depends: conf.depends,
                autoinstall: conf.autoinstall,
                objects: conf.records.into_iter().map(|record| record.dest_name).collect(),
            };
            Ok((evaluated, facts))
        });
        match facts {
            Ok((evaluated, facts)) => {
                if let Some(inputs) = &mut pair.inputs {
                    inputs.conf = evaluated.values.digest();
                }
                pair.evaluated = Some(evaluated);
                pair.conf = Some(Ok(facts));
            }
            Err(problem) => {
                pair.inputs = None;
                pair.conf = Some(Err(problem));
            }
        }
    }
}

/// Returns the objects of a build that an installation would still leave out.
fn refused(machine: &Machine, id: &ModuleId, dir: &Path, record: &Record) -> Vec<RefusedObject> {
    let is_forced = || machine.always_installs(&id.name) || machine.ignores_version_of(&id.name);
    if record.refused.is_empty() || is_forced() {
        return Vec::new();
    }
    let there = |object: &&RefusedObject| {
        object.by.as_ref().is_none_or(|path| dir.join(path).exists())
            && record.objects.iter().any(|built| built.name == object.name)
    };
    record.refused.iter().filter(there).cloned().collect()
}

/// Returns true if at least one of `inputs` has changed since dkms built the objects in `module`.
///
/// Compares ctimes, since pacman sets mtimes to those stored in the package.
fn is_older(module: &Path, inputs: &[PathBuf]) -> bool {
    let changed = |path: &Path| fs::metadata(path).map(|meta| (meta.ctime(), meta.ctime_nsec()));
    let Ok(entries) = fs::read_dir(module) else { return false };
    let built = entries.flatten().filter_map(|entry| changed(&entry.path()).ok()).min();
    let newest = inputs.iter().filter_map(|path| changed(path).ok()).max();
    matches!((built, newest), (Some(built), Some(newest)) if newest > built)
}
