//! Reading the facts: the trees are looked at once, before anything is planned.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::confs::Confs;
use crate::debts::Debts;
use crate::digest::{Digest, Digests};
use crate::durable::UNFINISHED;
use crate::facts::{
    Built, ConfFacts, Facts, KernelFacts, Lack, ModuleFacts, Pair, SourceLink, SourcePlace,
};
use crate::import::Import;
use crate::kernels::{Kernel, Kernels};
use crate::links;
use crate::names::{KernelRelease, ModuleId};
use crate::object::{Compression, ObjectName};
use crate::record::{Failure, Inputs, Record};
use crate::site::Site;
use crate::state::{self, State};

/// What the facts are wanted for.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Kernels to be looked at in depth, whether they exist or not; nothing means all that exist.
    pub kernels: Option<BTreeSet<KernelRelease>>,
    /// Modules whose dkms.conf is asked; nothing means all. The confs of others are taken from
    /// their records where those are good.
    pub modules: Option<BTreeSet<ModuleId>>,
    /// True where nothing will be built: no conf is asked and nothing is hashed.
    pub shallow: bool,
    /// A module that comes from elsewhere.
    pub import: Option<Import>,
    /// Whether headers in a kernel's own directory are taken to be a package's, see
    /// [`Digests::trusting_packages`].
    pub trusts_packages: bool,
}

impl Scope {
    fn covers(&self, kernel: &KernelRelease) -> bool {
        !self.shallow && self.kernels.as_ref().is_none_or(|kernels| kernels.contains(kernel))
    }

    fn asks(&self, id: &ModuleId) -> bool {
        self.modules.as_ref().is_none_or(|modules| modules.contains(id))
    }
}

/// Reads the facts. Nothing is changed but the cache of digests.
///
/// What cannot be read becomes a problem of its module, or one of [`Facts::problems`]; it never
/// keeps the rest from being read.
#[must_use]
pub fn read(site: &Site, scope: &Scope) -> Facts {
    let mut survey = Survey {
        site,
        scope,
        digests: Digests::open(&site.trees).trusting_packages(scope.trusts_packages),
        confs: Confs::new(site),
        sources: BTreeMap::new(),
        overrides: BTreeMap::new(),
        compression: BTreeMap::new(),
        keys: BTreeMap::new(),
        lacking: BTreeMap::new(),
        kernels_known: true,
        problems: site.settings.problems.clone(),
    };
    let mut kernels = survey.kernels();
    let mut modules = survey.modules();
    survey.add_import(&mut modules);
    survey.look_ahead(&kernels, &modules);
    survey.identities(&mut kernels);
    for (id, module) in &mut modules {
        survey.pairs(id, module, &kernels);
    }
    if let Err(error) = survey.digests.save() {
        log::info!("{error}");
    }
    Facts {
        arch: site.arch.clone(),
        kernels,
        lacking: survey.lacking,
        modules,
        debts: Debts::of(&site.trees).read(),
        cached: if scope.shallow || site.settings.cache_size() == 0 {
            HashSet::new()
        } else {
            Cache::of(&site.trees).keys()
        },
        kernels_known: survey.kernels_known,
        import: scope.import.clone(),
        no_autoinstall: site.trees.etc.join("no-autoinstall").exists(),
        problems: survey.problems,
    }
}

struct Survey<'a> {
    site: &'a Site,
    scope: &'a Scope,
    digests: Digests,
    confs: Confs<'a>,
    /// The digest of each source, made when first needed.
    sources: BTreeMap<ModuleId, Option<Digest>>,
    /// The digest of each module's overrides, likewise.
    overrides: BTreeMap<ModuleId, Digest>,
    /// How the objects of each kernel are compressed, likewise.
    compression: BTreeMap<KernelRelease, Compression>,
    /// By which certificate they are signed, likewise.
    keys: BTreeMap<KernelRelease, Option<Digest>>,
    lacking: BTreeMap<ModuleId, Lack>,
    kernels_known: bool,
    problems: Vec<String>,
}

impl Survey<'_> {
    fn kernels(&mut self) -> BTreeMap<KernelRelease, KernelFacts> {
        let read = Kernels::read(&self.site.trees).unwrap_or_else(|error| {
            self.problems.push(error.to_string());
            self.kernels_known = false;
            Kernels::default()
        });
        self.problems.extend(
            read.problems.iter().map(|bad| format!("{}: {bad}", self.site.trees.install.display())),
        );
        let mut all: BTreeMap<KernelRelease, Kernel> =
            read.all.into_iter().map(|kernel| (kernel.release.clone(), kernel)).collect();
        for release in self.scope.kernels.iter().flatten() {
            let kernel = all.entry(release.clone()).or_insert_with(|| Kernel {
                release: release.clone(),
                dir: self.site.trees.kernel(release),
                alive: false,
                headers: None,
                config: None,
                pkgbase: None,
            });
            self.site.asked.equip(kernel);
        }
        all.into_iter()
            .map(|(release, kernel)| (release, KernelFacts { kernel, inputs: None, owned: true }))
            .collect()
    }

    /// Walks everything that is going to be compared with what it was, at once.
    fn look_ahead(
        &mut self,
        kernels: &BTreeMap<KernelRelease, KernelFacts>,
        modules: &BTreeMap<ModuleId, ModuleFacts>,
    ) {
        let kernels: Vec<&Kernel> =
            kernels.values().map(|about| &about.kernel).filter(|k| self.compares(k)).collect();
        if kernels.is_empty() {
            return;
        }
        let there = modules.iter().filter(|(_, module)| module.source != SourcePlace::Missing);
        let sources: Vec<PathBuf> = there.map(|(id, module)| self.source_of(id, module)).collect();
        self.digests.look_ahead(&kernels, &sources);
    }

    /// Whether something may be built for a kernel, so that it matters what it is.
    fn compares(&self, kernel: &Kernel) -> bool {
        self.scope.covers(&kernel.release) && kernel.headers.is_some()
    }

    fn identities(&mut self, kernels: &mut BTreeMap<KernelRelease, KernelFacts>) {
        for (release, about) in kernels {
            if self.compares(&about.kernel) {
                about.inputs = self
                    .digests
                    .kernel_identity(&about.kernel)
                    .inspect_err(|error| self.problems.push(format!("{release}: {error}")))
                    .ok();
            }
        }
    }

    /// The modules of the dkms tree and of the source tree.
    fn modules(&mut self) -> BTreeMap<ModuleId, ModuleFacts> {
        let state = State::read(&self.site.trees);
        self.problems.extend(state.problems.iter().cloned());
        let mut modules = BTreeMap::new();
        let mut by_source = BTreeMap::new();
        for added in &state.modules {
            let module = self.added(added);
            if let Some(dir) = source_dir(self.site, &added.id) {
                by_source.insert(dir, added.id.clone());
            }
            modules.insert(added.id.clone(), module);
        }
        for id in self.scope.modules.iter().flatten() {
            self.lacking.extend(self.lack(id, &state).map(|lack| (id.clone(), lack)));
            // Only who names both can tell a name with a dash from a version with one.
            by_source.entry(id.source_dir()).or_insert_with(|| id.clone());
        }
        for dir in self.source_dirs() {
            let id = match by_source.get(&dir) {
                Some(id) => id.clone(),
                None => match ModuleId::from_source_dir(&dir) {
                    Ok(id) => id,
                    Err(error) => {
                        self.problems.push(format!("/usr/src/{dir} is left alone: {error}"));
                        continue;
                    }
                },
            };
            let module = modules.entry(id).or_insert_with(|| ModuleFacts {
                source_dir: dir.clone(),
                source: SourcePlace::Present,
                link: SourceLink::None,
                elsewhere: false,
                pairs: BTreeMap::new(),
            });
            module.source_dir = dir;
            module.source = SourcePlace::Present;
        }
        modules
    }

    /// Whether the command line names a file to read in place of the module's dkms.conf.
    fn conf_is_given(&self, id: &ModuleId) -> bool {
        let asked = &self.site.asked;
        asked.conf.is_some() && asked.module.as_ref() == Some(id)
    }

    /// What a module that a command names lacks.
    fn lack(&self, id: &ModuleId, state: &State) -> Option<Lack> {
        let added = state.modules.iter().find(|added| added.id == *id);
        if added.is_some_and(state::Added::is_unlinked) {
            return Some(Lack::Link);
        }
        let dir = self.site.trees.source.join(id.source_dir());
        (dir.is_dir() && !has_conf(&dir)).then_some(Lack::Conf)
    }

    /// Counts the source of what comes as present: it will be.
    fn add_import(&self, modules: &mut BTreeMap<ModuleId, ModuleFacts>) {
        let Some(import) = &self.scope.import else { return };
        let module = modules.entry(import.id.clone()).or_insert_with(|| ModuleFacts {
            source_dir: import.id.source_dir(),
            source: SourcePlace::Missing,
            link: SourceLink::None,
            elsewhere: false,
            pairs: BTreeMap::new(),
        });
        if import.source.is_some() && module.link != SourceLink::Source {
            module.source_dir = import.id.source_dir();
            module.source = SourcePlace::Present;
        }
    }

    fn added(&self, added: &state::Added) -> ModuleFacts {
        let trees = &self.site.trees;
        let id = &added.id;
        let kept = trees.kept(id);
        let resolved = links::resolve(&trees.root, &trees.source_link(id));
        let (link, source) = match &added.source {
            state::Source::Link { .. } if resolved.as_ref().is_ok_and(|to| *to == kept) => {
                (SourceLink::Kept, SourcePlace::Kept)
            }
            // A directory without dkms.conf is what its package left behind, not a source.
            state::Source::Link { .. }
                if resolved.is_ok_and(|to| self.conf_is_given(id) || has_conf(&to)) =>
            {
                (SourceLink::Source, SourcePlace::Present)
            }
            state::Source::Link { .. } if has_conf(&kept) => {
                (SourceLink::Mendable, SourcePlace::Kept)
            }
            state::Source::Link { .. } => (SourceLink::Broken, SourcePlace::Missing),
            state::Source::BinariesOnly | state::Source::Missing => {
                (SourceLink::None, SourcePlace::Missing)
            }
        };
        let mut module = ModuleFacts {
            source_dir: source_dir(self.site, id).unwrap_or_else(|| id.source_dir()),
            source,
            link,
            elsewhere: added
                .kernels
                .iter()
                .any(|built| built.arch != self.site.arch && built.has_module_dir),
            pairs: BTreeMap::new(),
        };
        let of_this_arch =
            |built: &&state::BuiltFor| built.arch == self.site.arch && built.has_module_dir;
        for built in added.kernels.iter().filter(of_this_arch) {
            let pair = Pair {
                built: Some(Built { installed: built.installed, ..Built::default() }),
                ..Pair::default()
            };
            module.pairs.insert(built.kernel.clone(), pair);
        }
        module
    }

    /// Directories of the source tree that hold a dkms.conf, by name.
    fn source_dirs(&mut self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.site.trees.source) else { return Vec::new() };
        let mut dirs = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let unfinished = name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
            if unfinished || !has_conf(&entry.path()) {
                continue;
            }
            match entry.file_name().into_string() {
                Ok(name) => dirs.push(name),
                Err(name) => self.problems.push(format!(
                    "/usr/src/{} is left alone: its name is not UTF-8",
                    name.to_string_lossy()
                )),
            }
        }
        dirs.sort();
        dirs
    }

    /// Fills in what is known of a module for each kernel.
    fn pairs(
        &mut self,
        id: &ModuleId,
        module: &mut ModuleFacts,
        kernels: &BTreeMap<KernelRelease, KernelFacts>,
    ) {
        let covered = kernels.keys().filter(|kernel| self.scope.covers(kernel));
        let releases: BTreeSet<KernelRelease> =
            covered.chain(module.pairs.keys()).cloned().collect();
        for release in releases {
            let mut pair = module.pairs.remove(&release).unwrap_or_default();
            let kernel = kernels.get(&release);
            self.look_at_build(id, &release, kernel, &mut pair);
            if module.source != SourcePlace::Missing
                && self.scope.covers(&release)
                && let Some(kernel) = kernel
            {
                self.look_at_inputs(id, module, kernel, &mut pair);
            }
            module.pairs.insert(release, pair);
        }
    }

    fn look_at_build(
        &mut self,
        id: &ModuleId,
        release: &KernelRelease,
        kernel: Option<&KernelFacts>,
        pair: &mut Pair,
    ) {
        let trees = &self.site.trees;
        let arch = &self.site.arch;
        pair.failure = Failure::read(&Failure::path(trees, id, release, arch));
        let Some(built) = &mut pair.built else { return };
        built.record = Record::read(&Record::path(trees, id, release, arch));
        built.in_place = true;
        if let Some(record) = &built.record {
            let dir = trees.kernel(release);
            built.in_place = record.placed.iter().all(|placed| dir.join(&placed.path).exists());
            let compression = kernel.filter(|k| k.kernel.alive).map(|about| {
                let known = self.compression.entry(release.clone());
                *known.or_insert_with(|| about.kernel.compression())
            });
            // A plain object is one that could not be compressed; it works everywhere.
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
                let key = *known
                    .or_insert_with(|| self.site.signing.certificate(self.site, &kernel.kernel));
                built.other_key = key.is_some() && key != record.signing;
            }
        } else if let Some(headers) = kernel.and_then(|k| k.kernel.headers.as_ref()) {
            let module = trees.built(id, release, arch).join("module");
            let conf = trees.source_link(id).join("dkms.conf");
            let conf = links::resolve(&trees.root, &conf).unwrap_or(conf);
            let inputs = [conf, headers.join("Module.symvers"), headers.join(".config")];
            built.outdated = is_older(&module, &inputs);
        }
    }

    fn look_at_inputs(
        &mut self,
        id: &ModuleId,
        module: &ModuleFacts,
        kernel: &KernelFacts,
        pair: &mut Pair,
    ) {
        let source = self.source_of(id, module);
        let inputs = kernel.inputs.as_ref().and_then(|identity| {
            Some(Inputs {
                source: self.source_digest(id, &source)?,
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
        let as_recorded =
            |_: &&Record| !self.site.asked.changes_conf_of(id) && !self.site.has_directives();
        let values = match recorded.filter(as_recorded).filter(still_good) {
            Some(record) => Ok(record.values.clone()),
            None if self.scope.asks(id) => self.confs.ask_at(id, &kernel.kernel, &source),
            None => return,
        };
        let facts = values.and_then(|values| {
            let conf = self.confs.understand(&kernel.kernel, &source, &values)?;
            let excluded = self.confs.excluded(&conf, &kernel.kernel);
            let facts = ConfFacts {
                excluded: excluded.whole().map(ToString::to_string),
                depends: conf.depends.clone(),
                autoinstall: conf.autoinstall,
            };
            Ok((values, facts))
        });
        match facts {
            Ok((values, facts)) => {
                pair.inputs = inputs.map(|inputs| Inputs { conf: values.digest(), ..inputs });
                pair.values = Some(values);
                pair.conf = Some(Ok(facts));
            }
            Err(problem) => pair.conf = Some(Err(problem)),
        }
    }

    fn source_of(&self, id: &ModuleId, module: &ModuleFacts) -> PathBuf {
        let trees = &self.site.trees;
        let import = self.scope.import.as_ref().filter(|import| import.id == *id);
        if let Some(comes) = import.and_then(|import| import.source.clone())
            && module.link != SourceLink::Source
        {
            return comes;
        }
        match module.source {
            SourcePlace::Kept => trees.kept(id),
            _ if module.link == SourceLink::Source => {
                let link = trees.source_link(id);
                links::resolve(&trees.root, &link).unwrap_or(link)
            }
            _ => trees.source.join(&module.source_dir),
        }
    }

    fn overrides_digest(&mut self, id: &ModuleId) -> Digest {
        *self.overrides.entry(id.clone()).or_insert_with(|| self.confs.overrides(id))
    }

    fn source_digest(&mut self, id: &ModuleId, source: &Path) -> Option<Digest> {
        if let Some(known) = self.sources.get(id) {
            return *known;
        }
        let digest = self
            .digests
            .source_tree(source)
            .inspect_err(|error| self.problems.push(format!("{id}: {error}")))
            .ok();
        self.sources.insert(id.clone(), digest);
        digest
    }
}

/// The name of the source directory that a registered module's link names, if it is one of the
/// source tree's, whether it is there or not.
fn source_dir(site: &Site, id: &ModuleId) -> Option<String> {
    let target = fs::read_link(site.trees.source_link(id)).ok()?;
    let tree = links::text_for(&site.trees.root, &site.trees.source);
    let below = target.strip_prefix(&tree).or_else(|_| target.strip_prefix(&site.trees.source));
    let name = below.ok()?;
    (name.components().count() == 1).then(|| name.to_string_lossy().into_owned())
}

fn has_conf(dir: &Path) -> bool {
    dir.join("dkms.conf").is_file()
}

/// Whether one of `inputs` came after what dkms put into `module`. The time is that of the inode:
/// pacman gives files the times they had in the package.
fn is_older(module: &Path, inputs: &[PathBuf]) -> bool {
    let changed = |path: &Path| fs::metadata(path).map(|meta| (meta.ctime(), meta.ctime_nsec()));
    let Ok(entries) = fs::read_dir(module) else { return false };
    let built = entries.flatten().filter_map(|entry| changed(&entry.path()).ok()).min();
    let newest = inputs.iter().filter_map(|path| changed(path).ok()).max();
    matches!((built, newest), (Some(built), Some(newest)) if newest > built)
}
