//! The parts of the machine's state that a plan depends on: plain data, read once.

mod fingerprints;
mod headers;
mod import;
mod queries;
mod source_names;
mod survey;
mod transactions;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::SystemTime;

use crate::conf::{Autoinstall, EvaluatedConf, Values};
use crate::dkms_tree::{
    Attempts, CacheKey, Inputs, Inventory, KernelIdentity, KnownFailure, PendingWork, Placed,
    Record,
};
use crate::failure::Failure;
use crate::machine::{Kernel, Leftovers};
use crate::names::{Arch, KernelRelease, ModuleId, ModuleName};
use crate::os::digest::Digest;

pub(crate) use fingerprints::Fingerprints;
pub(crate) use headers::BadHeaders;
pub use import::{Import, ImportedBuild};
pub use source_names::modules_of_sources;
pub(crate) use source_names::{named, named_by_conf};
pub use survey::{Scope, read, source_dirs};
pub use transactions::{OwnTransaction, Subjects, partly_unpacked_sources, running_pacman};
pub(crate) use transactions::{Stage, TransactionFacts};

/// The facts about a machine on which a plan is based.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The architecture for which modules are built.
    pub arch: Arch,
    /// The kernels in the install tree, and those named on the command line.
    pub kernels: BTreeMap<KernelRelease, KernelFacts>,
    /// The running kernel, which need not be installed. `None` if it is unknown.
    pub running: Option<KernelRelease>,
    /// The modules in the source tree and the dkms tree, and the module to import.
    pub modules: BTreeMap<ModuleId, ModuleFacts>,
    /// The modules named on the command line that lack a part required by dkms, each with the
    /// missing part.
    pub lacking: BTreeMap<ModuleId, Lack>,
    /// The work that earlier runs or hooks left pending. Empty in a run that another run has
    /// started.
    pub pending: Vec<PendingWork>,
    /// The attempts at pending work. Omits the attempts at a build if its failure may depend on a
    /// program that has changed since.
    pub(crate) attempts: BTreeMap<PendingWork, Attempts>,
    /// The transactions that PreTransaction hooks have recorded.
    pub(crate) transactions: Vec<TransactionFacts>,
    /// The leftovers of interrupted transactions.
    pub(crate) leftovers: Leftovers,
    /// The pending work of the outer run: the run that started this one, for example through a
    /// module's script. This run leaves the work to the outer run. Empty if there is no outer run.
    pub outer: Vec<PendingWork>,
    /// The keys of all builds in the cache, or only of the pinned builds if the cache is disabled.
    /// Empty if nothing will be built.
    pub cached: HashSet<CacheKey>,
    /// The digest of the environment of builds, which is part of the keys of cached builds.
    pub environment: Digest,
    /// The time at which reading the facts began.
    pub started: SystemTime,
    /// Whether the install tree could be read. If not, no kernel counts as removed.
    pub kernels_known: bool,
    /// The entries of the install tree that are links to kernels' directories, and those that
    /// cannot be examined. Kernels with these names do not count as removed.
    pub(crate) kernel_links: BTreeSet<KernelRelease>,
    /// Whether systemd has started the command.
    pub by_systemd: bool,
    /// Whether autoinstall is disabled by `/etc/dkms/no-autoinstall`.
    pub no_autoinstall: bool,
    /// The module to import, if any.
    pub import: Option<Import>,
    /// The modules that an earlier hook of the same transaction failed to install, each with the
    /// kernel. The value is true if the failure was transient. This run does not retry or report
    /// these installations.
    pub tried: BTreeMap<(ModuleId, KernelRelease), bool>,
    /// One message for each entry that could not be read.
    pub problems: Vec<String>,
}

/// The facts about one kernel.
#[derive(Debug, Clone)]
pub struct KernelFacts {
    /// The kernel, as found in the install tree. If the command line names it, it may be missing
    /// there.
    pub kernel: Kernel,
    /// The kernel's part of the build inputs; `None` if the headers are missing or were not read.
    pub(crate) inputs: Option<KernelIdentity>,
    /// The target of the kernel's `build` link, if the link leads nowhere.
    pub(crate) dangling: Option<PathBuf>,
    /// False if the kernel is a copy that is kept until the next boot.
    ///
    /// A copy has a `pkgbase` file, but no package owns it. Until [`Facts::mark_copies`] is called,
    /// the value is always true.
    pub(crate) owned: bool,
    /// The reason why the headers cannot be used for builds, if any.
    pub(crate) bad_headers: Option<BadHeaders>,
    /// Whether depmod's index of the kernel's modules is missing or older than an installed module.
    pub(crate) index_outdated: bool,
    /// The objects in the kernel's directory, with their present conditions.
    pub(crate) inventory: Inventory,
    /// Whether `inventory` differs from the inventory file.
    pub(crate) inventory_changed: bool,
    /// The objects whose files other kernel objects have replaced since the previous run.
    pub(crate) replaced: Vec<Placed>,
}

impl KernelFacts {
    /// Returns true if the kernel has headers, which builds require.
    #[must_use]
    pub(crate) fn has_headers(&self) -> bool {
        self.kernel.headers.is_some()
    }
}

/// A missing part without which dkms refuses to work on a module (dkms-behaviour 2.2, 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// The source link. The module has a directory in the dkms tree and one in the source tree, but
    /// no link between them. dkms calls such a module broken.
    Link,
    /// The dkms.conf in the module's directory in the source tree.
    Conf,
}

/// The state of a module's source link, `T/M/V/source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceLink {
    /// There is no link: the module is not added.
    None,
    /// The link points to a source.
    Source,
    /// The link points to the kept copy of the source.
    Kept,
    /// The link points to no source, but can be pointed at a kept copy of the source.
    Mendable,
    /// The link points to no source, and there is no kept copy. The module is broken.
    Broken,
}

/// The location of a module's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourcePlace {
    /// In the source tree, or in the directory to which the source link points.
    Present,
    /// Only in the kept copy, because the module's package was removed.
    Kept,
    /// Nowhere: there is neither a source nor a kept copy.
    Missing,
}

/// The facts about one version of a module.
#[derive(Debug, Clone)]
pub struct ModuleFacts {
    /// The name of the module's directory in the source tree.
    pub source_dir: String,
    pub(crate) source: SourcePlace,
    /// Whether it is certain that the source tree does not contain the source. False if the source
    /// cannot be examined, for example because of an I/O error.
    pub(crate) source_is_absent: bool,
    pub(crate) link: SourceLink,
    /// Whether the module is built for at least one other architecture.
    pub(crate) elsewhere: bool,
    /// The facts about the module for each kernel.
    pub(crate) pairs: BTreeMap<KernelRelease, Pair>,
}

/// The facts about one module for one kernel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pair {
    /// The parts of the dkms.conf that planning needs, or the failure to evaluate it. `None` if it
    /// was not evaluated.
    pub(crate) conf: Option<Result<ConfFacts, Failure>>,
    /// All values of the dkms.conf for this kernel; `None` if it was not evaluated successfully.
    pub(crate) evaluated: Option<EvaluatedConf>,
    /// The inputs of a new build, except its dependencies, which planning adds. `None` if the
    /// inputs were not read successfully.
    pub(crate) inputs: Option<Inputs>,
    /// The existing build, if any.
    pub(crate) built: Option<Built>,
    /// Whether the kernel's inventory lists objects of the module.
    pub(crate) placed: bool,
    /// The record of an earlier build that failed because of the module, if any.
    pub(crate) failure: Option<KnownFailure>,
}

/// The parts of a dkms.conf that planning needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfFacts {
    /// The names of the modules in BUILD_DEPENDS.
    pub(crate) depends: Vec<ModuleName>,
    pub(crate) autoinstall: Autoinstall,
    /// The rule that excludes the whole module for this kernel, if any, such as
    /// BUILD_EXCLUSIVE_ARCH.
    pub(crate) excluded: Option<String>,
    /// The names of the objects (`DEST_MODULE_NAME`).
    pub(crate) objects: Vec<String>,
}

/// An existing build of a module for a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Built {
    /// The record of the build; `None` if dkms made the build.
    pub(crate) record: Option<Record>,
    /// Whether the build's version of the module is the installed one.
    pub(crate) installed: bool,
    /// Whether exactly the objects of the build are in the kernel's directory. Objects that the
    /// installation leaves out do not count. True if there is no record.
    ///
    /// An object also counts as in place if it was replaced by hand, or if an object of another
    /// module was installed over it.
    pub(crate) in_place: bool,
    /// Whether an object of the build is missing from the dkms tree or damaged. Determined only if
    /// the build has to be installed, and otherwise false.
    pub(crate) damaged: bool,
    /// The reason why the build is not installed: for every object, the kernel has the same or a
    /// newer module. `None` if this is not the case.
    pub(crate) declined: Option<String>,
    /// Whether the source or the headers are newer than the objects. False if there is a record.
    pub(crate) outdated: bool,
    /// Whether at least one object's compression differs from that of the kernel's own modules.
    pub(crate) other_compression: bool,
    /// Whether the objects should be signed again, because the kernel's signing key changed.
    pub(crate) other_key: bool,
}

impl Pair {
    /// Returns all values of the dkms.conf, or `None` if it was not evaluated successfully.
    pub(crate) fn values(&self) -> Option<&Values> {
        self.evaluated.as_ref().map(|evaluated| &evaluated.values)
    }
}

impl ModuleFacts {
    /// Returns true if the module has a source link, even a broken one.
    #[must_use]
    pub(crate) fn is_registered(&self) -> bool {
        self.link != SourceLink::None
    }
}
