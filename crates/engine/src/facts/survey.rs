//! Reads the facts that a plan depends on.

mod inventories;
mod module_for_kernel;
mod modules;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use modules::source_dirs;

use super::transactions::{self, OwnTransaction, Subjects, TransactionFacts};
use super::{BadHeaders, Fingerprints};
use crate::conf::Confs;
use crate::dkms_tree::{Attempts, BuildCache, Inventory, KnownFailure, PendingList, PendingWork};
use crate::facts::{Facts, Import, KernelFacts, Lack, ModuleFacts, SourceLink, SourcePlace};
use crate::machine::{Kernel, Kernels, Machine, ModuleIndex, WrittenFiles, running_release};
use crate::names::{KernelRelease, ModuleId};
use crate::os::digest::Digest;
use crate::os::symlinks;

/// The parts of the machine that [`read`] examines.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The kernels to examine in depth, which need not exist. `None` means all existing kernels.
    pub kernels: Option<BTreeSet<KernelRelease>>,
    /// The changes of a transaction. If set, [`read`] combines them with pending work and recorded
    /// transactions. If the combination concerns no source, only its kernels are examined in depth.
    pub changed: Option<Subjects>,
    /// The modules whose dkms.conf is evaluated if necessary. `None` means all modules.
    ///
    /// The values of other modules come from their build records, if the records are still valid.
    pub modules: Option<BTreeSet<ModuleId>>,
    /// Whether to skip the steps that only builds need: evaluating dkms.conf files and hashing.
    pub shallow: bool,
    /// The module to import, if any.
    pub import: Option<Import>,
    /// The transaction of this hook, if any.
    pub own: Option<OwnTransaction>,
    /// Whether to assume that headers in a kernel's own directory belong to a package.
    ///
    /// Package managers replace files instead of writing into them. Replacing a file changes its
    /// directory, so it is enough to check directories.
    pub trusts_packages: bool,
}

impl Scope {
    /// Returns this scope, limited to the kernels that [`Self::changed`] selects.
    fn narrowed(&self, pending: &[PendingWork], recorded: &[TransactionFacts]) -> Self {
        let kernels = self.changed.as_ref().and_then(|changed| {
            let mut concerned = transactions::concerned(pending, recorded);
            concerned.extend(changed);
            concerned.sources.is_empty().then_some(concerned.kernels)
        });
        Self { kernels: kernels.or_else(|| self.kernels.clone()), ..self.clone() }
    }

    fn covers(&self, kernel: &KernelRelease) -> bool {
        !self.shallow && self.kernels.as_ref().is_none_or(|kernels| kernels.contains(kernel))
    }

    fn evaluates(&self, id: &ModuleId) -> bool {
        self.modules.as_ref().is_none_or(|modules| modules.contains(id))
    }
}

/// Reads the facts about a machine, limited to `scope`. Changes nothing except the stored digests.
///
/// If something cannot be read, the failure is recorded for the module concerned or in
/// [`Facts::problems`], and everything else is still read.
#[must_use]
pub fn read(machine: &Machine, scope: &Scope) -> Facts {
    let started = SystemTime::now();
    let (mut pending, mut outer) = (PendingList::of(&machine.trees).read(), Vec::new());
    let mut attempts = attempts(machine);
    let own = scope.own.as_ref();
    let mut transactions = transactions::read(machine, own);
    if machine.is_within_run() {
        outer = std::mem::take(&mut pending);
        attempts.clear();
        outer.extend(transactions.iter().map(TransactionFacts::to_pending));
        transactions.retain(TransactionFacts::is_running);
    }
    let scope = &scope.narrowed(&pending, &transactions);
    let mut survey = Survey {
        machine,
        scope,
        digests: Fingerprints::open(&machine.trees).trusting_packages(scope.trusts_packages),
        confs: Confs::new(machine),
        linked: BTreeMap::new(),
        sources: BTreeMap::new(),
        written: WrittenFiles::read_all(&machine.trees),
        overrides: BTreeMap::new(),
        keys: BTreeMap::new(),
        lacking: BTreeMap::new(),
        kernels_known: true,
        kernel_links: BTreeSet::new(),
        inventories: BTreeMap::new(),
        recorded: BTreeMap::new(),
        problems: Vec::new(),
    };
    let mut kernels = survey.kernels();
    let mut modules = survey.modules();
    survey.add_import(&mut modules);
    survey.read_inventories(&kernels, &mut modules);
    survey.look_ahead(&kernels, &modules);
    survey.identities(&mut kernels);
    survey.pairs(&mut modules, &kernels);
    survey.indexes(&mut kernels);
    survey.add_inventories(&mut kernels);
    if let Err(error) = survey.digests.save() {
        log::info!("{error}");
    }
    Facts {
        arch: machine.arch.clone(),
        kernels,
        running: running_release(),
        lacking: survey.lacking,
        modules,
        pending,
        attempts,
        leftovers: transactions::leftovers(&machine.trees, own, &transactions),
        transactions,
        outer,
        cached: match (scope.shallow, machine.settings.cache_size()) {
            (true, _) => HashSet::new(),
            (false, 0) => BuildCache::of(&machine.trees).pinned_keys(),
            (false, _) => BuildCache::of(&machine.trees).keys(),
        },
        environment: machine.build_environment(),
        started,
        kernels_known: survey.kernels_known,
        kernel_links: survey.kernel_links,
        import: scope.import.clone(),
        by_systemd: machine.options.by_systemd,
        no_autoinstall: machine.trees.etc.join("no-autoinstall").exists(),
        tried: BTreeMap::new(),
        problems: survey.problems,
    }
}

/// Reads the attempts at pending work. Omits the attempts at a build if its failure may depend on a
/// program that has changed since.
fn attempts(machine: &Machine) -> BTreeMap<PendingWork, Attempts> {
    let mut attempts = PendingList::of(&machine.trees).attempts();
    attempts.retain(|work, _| {
        let PendingWork::Install { module, kernel } = work else { return true };
        let path = KnownFailure::path(&machine.trees, module, kernel, &machine.arch);
        KnownFailure::read(&path).is_none_or(|failure| failure.is_current(machine))
    });
    attempts
}

struct Survey<'a> {
    machine: &'a Machine,
    scope: &'a Scope,
    digests: Fingerprints,
    confs: Confs<'a>,
    /// The resolved target directory of each module's source link.
    linked: BTreeMap<ModuleId, PathBuf>,
    /// The digest of each module's source, without the changes that the module's scripts made.
    /// Computed on first use; `None` if the source cannot be read.
    sources: BTreeMap<ModuleId, Option<Digest>>,
    /// The files that scripts have written into the sources, by the names of the source
    /// directories.
    written: BTreeMap<String, WrittenFiles>,
    /// The digest of each module's overrides, computed on first use.
    overrides: BTreeMap<ModuleId, Digest>,
    /// The digest of each kernel's signing certificate, computed on first use; `None` if the kernel
    /// has no certificate.
    keys: BTreeMap<KernelRelease, Option<Digest>>,
    lacking: BTreeMap<ModuleId, Lack>,
    kernels_known: bool,
    kernel_links: BTreeSet<KernelRelease>,
    /// The inventory of each kernel, with the present conditions of the objects.
    inventories: BTreeMap<KernelRelease, Inventory>,
    /// The inventory of each kernel as it was read, before its objects were compared with the
    /// files.
    recorded: BTreeMap<KernelRelease, Inventory>,
    problems: Vec<String>,
}

impl Survey<'_> {
    fn kernels(&mut self) -> BTreeMap<KernelRelease, KernelFacts> {
        let read = Kernels::read(&self.machine.trees).unwrap_or_else(|error| {
            self.problems.push(error.to_string());
            self.kernels_known = false;
            Kernels::default()
        });
        self.kernel_links = read.links;
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
                package: None,
            });
            self.machine.options.equip(kernel);
        }
        all.into_iter()
            .map(|(release, kernel)| {
                let is_named = self.scope.kernels.iter().flatten().any(|it| *it == release);
                let given = self.machine.options.kernel_source.as_deref().filter(|_| is_named);
                let bad_headers = BadHeaders::find(&kernel, given);
                let dangling = self.dangling_headers(&kernel);
                let facts = KernelFacts {
                    kernel,
                    inputs: None,
                    owned: true,
                    bad_headers,
                    dangling,
                    index_outdated: false,
                    inventory: Inventory::default(),
                    inventory_changed: false,
                    replaced: Vec::new(),
                };
                (release, facts)
            })
            .collect()
    }

    /// Returns the target of a kernel's `build` link, if the link leads nowhere.
    fn dangling_headers(&self, kernel: &Kernel) -> Option<PathBuf> {
        let given = self.machine.options.kernel_source.is_some();
        let link = kernel.dir.join("build");
        let lacks = kernel.headers.is_none() && !given;
        let target = lacks.then(|| fs::read_link(&link).ok()).flatten()?;
        symlinks::resolve(&self.machine.trees.root, &link).is_err().then_some(target)
    }

    /// Walks the sources and headers that will be hashed, on all cores.
    fn look_ahead(
        &mut self,
        kernels: &BTreeMap<KernelRelease, KernelFacts>,
        modules: &BTreeMap<ModuleId, ModuleFacts>,
    ) {
        let kernels: Vec<&Kernel> = kernels
            .values()
            .map(|about| &about.kernel)
            .filter(|k| self.needs_identity(k))
            .collect();
        if kernels.is_empty() {
            return;
        }
        let there = modules.iter().filter(|(_, module)| module.source != SourcePlace::Missing);
        let sources: Vec<PathBuf> = there.map(|(id, module)| self.source_of(id, module)).collect();
        self.digests.look_ahead(&kernels, &sources);
    }

    /// Returns true if the identity of `kernel` is needed, because modules can be built for it.
    fn needs_identity(&self, kernel: &Kernel) -> bool {
        self.scope.covers(&kernel.release) && kernel.headers.is_some()
    }

    fn identities(&mut self, kernels: &mut BTreeMap<KernelRelease, KernelFacts>) {
        for (release, about) in kernels {
            if self.needs_identity(&about.kernel) {
                about.inputs = self
                    .digests
                    .kernel_identity(&about.kernel)
                    .inspect_err(|error| self.problems.push(format!("{release}: {error}")))
                    .ok();
            }
        }
    }

    /// Examines depmod's index of each kernel that has installed modules.
    fn indexes(&self, kernels: &mut BTreeMap<KernelRelease, KernelFacts>) {
        let kernels = kernels.iter_mut().filter(|(release, about)| {
            self.machine.depmod && about.kernel.alive && self.scope.covers(release)
        });
        for (release, about) in kernels {
            let Some(inventory) = self.inventories.get(release) else { continue };
            let mut placed = inventory.on_top().peekable();
            if placed.peek().is_none() {
                continue;
            }
            let dir = &about.kernel.dir;
            about.index_outdated = ModuleIndex::read(dir)
                .is_none_or(|index| placed.any(|object| index.is_older_than(dir, &object.path)));
        }
    }

    fn source_of(&self, id: &ModuleId, module: &ModuleFacts) -> PathBuf {
        let trees = &self.machine.trees;
        let import = self.scope.import.as_ref().filter(|import| import.id == *id);
        if let Some(imported) = import.and_then(|import| import.source.clone())
            && module.link != SourceLink::Source
        {
            return imported;
        }
        match module.source {
            SourcePlace::Kept => trees.kept(id),
            _ if module.link == SourceLink::Source => {
                self.linked.get(id).cloned().unwrap_or_else(|| trees.source_link(id))
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
        let written = self.written.get(&id.source_dir()).cloned().unwrap_or_default();
        let digest = self
            .digests
            .source_tree(source, &written)
            .inspect_err(|error| self.problems.push(format!("{id}: {error}")))
            .ok();
        self.sources.insert(id.clone(), digest);
        digest
    }
}
