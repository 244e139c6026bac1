//! The state of the machine as far as a plan depends on it: plain data, read once.

mod fingerprints;
mod import;
mod survey;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::conf::{Autoinstall, EvaluatedConf, Values};
use crate::dkms_tree::{CacheKey, Inputs, KernelIdentity, KnownFailure, PendingWork, Record};
use crate::failure::Failure;
use crate::machine::Kernel;
use crate::names::{Arch, KernelRelease, ModuleId, ModuleName};

pub(crate) use fingerprints::Fingerprints;
pub use import::{Import, ImportedBuild};
pub use survey::{Scope, read, source_dirs};

/// Everything that planning looks at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The architecture that is built for.
    pub arch: Arch,
    /// The kernels of the install tree, and those that the command names.
    pub kernels: BTreeMap<KernelRelease, KernelFacts>,
    /// The modules of the source tree and of the dkms tree.
    pub modules: BTreeMap<ModuleId, ModuleFacts>,
    /// What named modules lack without which dkms does nothing with them.
    pub lacking: BTreeMap<ModuleId, Lack>,
    /// Pending work.
    pub pending: Vec<PendingWork>,
    /// Builds that can be taken from the cache.
    pub cached: HashSet<CacheKey>,
    /// False if the install tree could not be read: then no kernel counts as gone.
    pub kernels_known: bool,
    /// Whether the administrator wants no autoinstall (`/etc/dkms/no-autoinstall`).
    pub no_autoinstall: bool,
    /// A module that comes from elsewhere.
    pub import: Option<Import>,
    /// What could not be read, one sentence each.
    pub problems: Vec<String>,
}

/// One kernel.
#[derive(Debug, Clone)]
pub struct KernelFacts {
    /// The kernel as it stands in the install tree.
    pub kernel: Kernel,
    /// What modules are compiled against; nothing if there are no headers or if they were not
    /// looked at.
    pub(crate) inputs: Option<KernelIdentity>,
    /// False if it has a pkgbase that no package owns: a copy that is kept until the next boot.
    /// The trees do not show it, see [`Facts::name_copies`].
    pub(crate) owned: bool,
}

impl KernelFacts {
    /// Returns true if modules can be built for it.
    #[must_use]
    pub(crate) fn has_headers(&self) -> bool {
        self.kernel.headers.is_some()
    }
}

/// What a module can lack (dkms-behaviour 2.2, 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// It has a directory in the dkms tree and one in the source tree, and no link between them:
    /// broken.
    Link,
    /// Its directory in the source tree has no dkms.conf.
    Conf,
}

/// Where `T/M/V/source` leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceLink {
    /// There is none: dkms does not know the module.
    None,
    /// To a source.
    Source,
    /// To the copy that we kept.
    Kept,
    /// Nowhere, but there is a kept copy to lead it to.
    Mendable,
    /// Nowhere (dkms's "broken").
    Broken,
}

/// Where a module's source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourcePlace {
    /// In the source tree (or wherever the registered link points).
    Present,
    /// Only in the copy that we kept: its package is gone.
    Kept,
    /// Nowhere.
    Missing,
}

/// One version of a module.
#[derive(Debug, Clone)]
pub struct ModuleFacts {
    /// The name of its directory in the source tree.
    pub source_dir: String,
    /// Where its source is now.
    pub(crate) source: SourcePlace,
    /// How dkms knows it.
    pub(crate) link: SourceLink,
    /// Whether it is built for another architecture, too.
    pub(crate) elsewhere: bool,
    /// What is known of it for each kernel.
    pub(crate) pairs: BTreeMap<KernelRelease, Pair>,
}

/// A module and a kernel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pair {
    /// What dkms.conf says for this kernel; `None` if it was not evaluated.
    pub(crate) conf: Option<Result<ConfFacts, Failure>>,
    /// All that it says, likewise.
    pub(crate) evaluated: Option<EvaluatedConf>,
    /// What it would be built from now, without the dependencies (planning adds those).
    pub(crate) inputs: Option<Inputs>,
    /// What is built.
    pub(crate) built: Option<Built>,
    /// The failure that is remembered.
    pub(crate) failure: Option<KnownFailure>,
}

/// What planning wants to know of a dkms.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfFacts {
    /// BUILD_DEPENDS.
    pub(crate) depends: Vec<ModuleName>,
    /// AUTOINSTALL.
    pub(crate) autoinstall: Autoinstall,
    /// Why nothing of it is meant for this kernel, if so.
    pub(crate) excluded: Option<String>,
}

/// What was built of a module for a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Built {
    /// Our note beside it; nothing if dkms built it.
    pub(crate) record: Option<Record>,
    /// Whether it is the version that is installed.
    pub(crate) installed: bool,
    /// Whether each placed object is in its place, as far as that is recorded.
    pub(crate) in_place: bool,
    /// Without a record: whether source or headers are newer than the objects.
    pub(crate) outdated: bool,
    /// Whether its objects are compressed in another way than the kernel's modules.
    pub(crate) other_compression: bool,
    /// Whether they are not signed with the key that there is now.
    pub(crate) other_key: bool,
}

impl Pair {
    /// All values of its dkms.conf.
    pub(crate) fn values(&self) -> Option<&Values> {
        self.evaluated.as_ref().map(|evaluated| &evaluated.values)
    }
}

impl ModuleFacts {
    /// Returns true if dkms knows it.
    #[must_use]
    pub(crate) fn is_registered(&self) -> bool {
        self.link != SourceLink::None
    }
}

impl Facts {
    /// The version of a module that is installed for a kernel.
    #[must_use]
    pub(crate) fn installed(&self, name: &ModuleName, kernel: &KernelRelease) -> Option<&ModuleId> {
        let installed = |id: &&ModuleId| self.built(id, kernel).is_some_and(|b| b.installed);
        self.modules.keys().filter(|id| id.name == *name).find(installed)
    }

    /// Adds which of the kernels no package owns. One with a pkgbase among them is a copy; one
    /// without was built by hand.
    pub fn name_copies<'a>(&mut self, unowned: impl Iterator<Item = &'a KernelRelease>) {
        for release in unowned {
            if let Some(about) = self.kernels.get_mut(release) {
                about.owned = about.kernel.pkgbase.is_none();
            }
        }
    }

    /// All versions of a module.
    pub(crate) fn versions<'a>(
        &'a self,
        name: &'a ModuleName,
    ) -> impl Iterator<Item = (&'a ModuleId, &'a ModuleFacts)> {
        self.modules.iter().filter(move |(id, _)| id.name == *name)
    }

    /// Of several versions of a module, the one to build: the newest that has its source, else
    /// the newest whose source was kept. Those in `gone` are not built any more.
    #[must_use]
    pub(crate) fn newest_sources(&self, gone: &BTreeSet<ModuleId>) -> BTreeSet<&ModuleId> {
        let there = |(id, module): &(&ModuleId, &ModuleFacts)| {
            module.source != SourcePlace::Missing && !gone.contains(*id)
        };
        self.newest(self.modules.iter().filter(there))
    }

    /// Of the versions that dkms knows of each module, the newest that has its source.
    #[must_use]
    pub(crate) fn newest_registered(&self) -> BTreeSet<&ModuleId> {
        let known = |(_, module): &(&ModuleId, &ModuleFacts)| {
            module.is_registered() && module.source != SourcePlace::Missing
        };
        self.newest(self.modules.iter().filter(known))
    }

    fn newest<'a>(
        &self,
        modules: impl Iterator<Item = (&'a ModuleId, &'a ModuleFacts)>,
    ) -> BTreeSet<&'a ModuleId> {
        let mut newest: BTreeMap<&ModuleName, (&ModuleId, &ModuleFacts)> = BTreeMap::new();
        for (id, module) in modules {
            let best = newest.entry(&id.name).or_insert((id, module));
            let present = |module: &ModuleFacts| module.source == SourcePlace::Present;
            let newer =
                crate::version::compare(id.version.as_str(), best.0.version.as_str()).is_gt();
            if (present(module), newer) > (present(best.1), false) {
                *best = (id, module);
            }
        }
        newest.into_values().map(|(id, _)| id).collect()
    }

    /// What is known of a module for a kernel.
    #[must_use]
    pub(crate) fn pair(&self, id: &ModuleId, kernel: &KernelRelease) -> Option<&Pair> {
        self.modules.get(id)?.pairs.get(kernel)
    }

    /// What its dkms.conf says for a kernel, if that could be read.
    #[must_use]
    pub(crate) fn conf(&self, id: &ModuleId, kernel: &KernelRelease) -> Option<&ConfFacts> {
        self.pair(id, kernel)?.conf.as_ref()?.as_ref().ok()
    }

    /// Returns true if a kernel is there.
    #[must_use]
    pub(crate) fn is_alive(&self, kernel: &KernelRelease) -> bool {
        self.kernels.get(kernel).is_some_and(|about| about.kernel.alive)
    }

    /// Returns true if modules can be built for a kernel.
    #[must_use]
    pub(crate) fn has_headers(&self, kernel: &KernelRelease) -> bool {
        self.kernels.get(kernel).is_some_and(KernelFacts::has_headers)
    }

    /// Whether a module is built for a kernel, and how.
    #[must_use]
    pub(crate) fn built(&self, id: &ModuleId, kernel: &KernelRelease) -> Option<&Built> {
        self.pair(id, kernel)?.built.as_ref()
    }
}
