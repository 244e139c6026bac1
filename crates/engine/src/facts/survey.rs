//! Reads the facts before anything is planned.

mod module_for_kernel;
mod modules;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

pub use modules::source_dirs;

use super::Fingerprints;
use crate::conf::Confs;
use crate::dkms_tree::{BuildCache, PendingList};
use crate::facts::{Facts, Import, KernelFacts, Lack, ModuleFacts, SourceLink, SourcePlace};
use crate::machine::{Kernel, Kernels, Machine};
use crate::names::{KernelRelease, ModuleId};
use crate::os::digest::Digest;
use crate::os::symlinks;

/// What the facts are wanted for.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Kernels to be looked at in depth, whether they exist or not; nothing means all that exist.
    pub kernels: Option<BTreeSet<KernelRelease>>,
    /// Modules whose dkms.conf is evaluated; `None` for all. The values of others are taken from
    /// their records where those are good.
    pub modules: Option<BTreeSet<ModuleId>>,
    /// True where nothing will be built: no conf is evaluated and nothing is hashed.
    pub shallow: bool,
    /// A module that comes from elsewhere.
    pub import: Option<Import>,
    /// Whether headers in a kernel's own directory are taken to be a package's, which replaces files
    /// and never writes into them.
    pub trusts_packages: bool,
}

impl Scope {
    fn covers(&self, kernel: &KernelRelease) -> bool {
        !self.shallow && self.kernels.as_ref().is_none_or(|kernels| kernels.contains(kernel))
    }

    fn evaluates(&self, id: &ModuleId) -> bool {
        self.modules.as_ref().is_none_or(|modules| modules.contains(id))
    }
}

/// Reads the facts. Nothing is changed but the cache of digests.
///
/// What cannot be read becomes a problem of its module, or one of [`Facts::problems`]; it never
/// keeps the rest from being read.
#[must_use]
pub fn read(machine: &Machine, scope: &Scope) -> Facts {
    let mut survey = Survey {
        machine,
        scope,
        digests: Fingerprints::open(&machine.trees).trusting_packages(scope.trusts_packages),
        confs: Confs::new(machine),
        sources: BTreeMap::new(),
        overrides: BTreeMap::new(),
        keys: BTreeMap::new(),
        lacking: BTreeMap::new(),
        kernels_known: true,
        problems: machine.settings.problems.clone(),
    };
    let mut kernels = survey.kernels();
    let mut modules = survey.modules();
    survey.add_import(&mut modules);
    survey.identities(&mut kernels);
    survey.pairs(&mut modules, &kernels);
    if let Err(error) = survey.digests.save() {
        log::info!("{error}");
    }
    Facts {
        arch: machine.arch.clone(),
        kernels,
        lacking: survey.lacking,
        modules,
        pending: PendingList::of(&machine.trees).read(),
        cached: if scope.shallow || machine.settings.cache_size() == 0 {
            HashSet::new()
        } else {
            BuildCache::of(&machine.trees).keys()
        },
        kernels_known: survey.kernels_known,
        import: scope.import.clone(),
        no_autoinstall: machine.trees.etc.join("no-autoinstall").exists(),
        problems: survey.problems,
    }
}

struct Survey<'a> {
    machine: &'a Machine,
    scope: &'a Scope,
    digests: Fingerprints,
    confs: Confs<'a>,
    /// The digest of each source, made when first needed.
    sources: BTreeMap<ModuleId, Option<Digest>>,
    /// The digest of each module's overrides, likewise.
    overrides: BTreeMap<ModuleId, Digest>,
    /// By which certificate they are signed, likewise.
    keys: BTreeMap<KernelRelease, Option<Digest>>,
    lacking: BTreeMap<ModuleId, Lack>,
    kernels_known: bool,
    problems: Vec<String>,
}

impl Survey<'_> {
    fn kernels(&mut self) -> BTreeMap<KernelRelease, KernelFacts> {
        let read = Kernels::read(&self.machine.trees).unwrap_or_else(|error| {
            self.problems.push(error.to_string());
            self.kernels_known = false;
            Kernels::default()
        });
        self.problems.extend(
            read.problems
                .iter()
                .map(|bad| format!("{}: {bad}", self.machine.trees.install.display())),
        );
        let mut all: BTreeMap<KernelRelease, Kernel> =
            read.all.into_iter().map(|kernel| (kernel.release.clone(), kernel)).collect();
        for release in self.scope.kernels.iter().flatten() {
            let kernel = all.entry(release.clone()).or_insert_with(|| Kernel {
                release: release.clone(),
                dir: self.machine.trees.kernel(release),
                alive: false,
                headers: None,
                config: None,
                pkgbase: None,
            });
            self.machine.options.equip(kernel);
        }
        all.into_iter()
            .map(|(release, kernel)| (release, KernelFacts { kernel, inputs: None, owned: true }))
            .collect()
    }

    /// Returns true if something may be built for a kernel, so that it matters what it is.
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

    fn source_of(&self, id: &ModuleId, module: &ModuleFacts) -> PathBuf {
        let trees = &self.machine.trees;
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
                symlinks::resolve(&trees.root, &link).unwrap_or(link)
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
