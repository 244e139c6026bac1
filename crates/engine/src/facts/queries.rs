//! Answers questions about the facts, such as which version of a module is installed.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Built, ConfFacts, Facts, KernelFacts, ModuleFacts, Pair, SourcePlace, Stage, TransactionFacts,
    transactions,
};
use crate::conf::Autoinstall;
use crate::dkms_tree::{CacheKey, Inputs, PendingWork};
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::objects::ObjectName;
use crate::os::digest::Digest;

impl Facts {
    /// Returns the installed version of a module for a kernel, or `None` if no version is
    /// installed.
    #[must_use]
    pub(crate) fn installed(&self, name: &ModuleName, kernel: &KernelRelease) -> Option<&ModuleId> {
        let mut versions = self.modules.keys().filter(|id| id.name == *name);
        versions.find(|id| self.is_installed(id, kernel))
    }

    /// Returns true if this version of a module is the installed one for a kernel.
    #[must_use]
    pub(crate) fn is_installed(&self, id: &ModuleId, kernel: &KernelRelease) -> bool {
        self.built(id, kernel).is_some_and(|built| built.installed)
    }

    /// Returns true if the cache contains a build of a module with these inputs.
    #[must_use]
    pub(crate) fn is_cached(&self, id: &ModuleId, inputs: &Inputs) -> bool {
        self.cached.contains(&CacheKey::of(id, &self.arch, inputs, &self.environment))
    }

    /// Returns true if this version of a module is installed for a kernel, or if the kernel's
    /// inventory lists objects of this version.
    #[must_use]
    pub(crate) fn is_installed_or_placed(&self, id: &ModuleId, kernel: &KernelRelease) -> bool {
        self.is_installed(id, kernel) || self.pair(id, kernel).is_some_and(|pair| pair.placed)
    }

    /// Marks the kernels in `unowned` that have a `pkgbase` file as copies.
    ///
    /// `unowned` are the kernels that no package owns. Those without a `pkgbase` file were built by
    /// hand.
    pub fn mark_copies<'a>(&mut self, unowned: impl Iterator<Item = &'a KernelRelease>) {
        for release in unowned {
            if let Some(about) = self.kernels.get_mut(release) {
                about.owned = about.kernel.pkgbase.is_none();
            }
        }
    }

    /// Returns all versions of a module with their facts.
    pub(crate) fn versions<'a>(
        &'a self,
        name: &'a ModuleName,
    ) -> impl Iterator<Item = (&'a ModuleId, &'a ModuleFacts)> {
        self.modules.iter().filter(move |(id, _)| id.name == *name)
    }

    /// Returns, for each module, the version to build. Ignores the versions in `gone`.
    ///
    /// That is the newest version whose source is present, or else the newest with a kept copy that
    /// [can be used](Self::has_usable_source).
    #[must_use]
    pub(crate) fn newest_sources(&self, gone: &BTreeSet<ModuleId>) -> BTreeSet<&ModuleId> {
        let there = |(id, module): &(&ModuleId, &ModuleFacts)| {
            self.has_usable_source(id, module) && !gone.contains(*id)
        };
        self.newest(self.modules.iter().filter(there))
    }

    /// Returns, for each module, the preferred version of those that have been added. Ignores the
    /// versions in `gone`.
    ///
    /// That is the newest version whose source is present, or else the newest with a kept copy that
    /// [can be used](Self::has_usable_source).
    #[must_use]
    pub(crate) fn newest_registered(&self, gone: &BTreeSet<ModuleId>) -> BTreeSet<&ModuleId> {
        let known = |(id, module): &(&ModuleId, &ModuleFacts)| {
            module.is_registered() && self.has_usable_source(id, module) && !gone.contains(*id)
        };
        self.newest(self.modules.iter().filter(known))
    }

    /// Returns true if the source of a module is present, or if a kept copy can be used instead.
    ///
    /// A kept copy can be used only if its version is installed for a kernel, and only as long as
    /// the source of no other version is present. After a rollback of `/usr`, the copy may belong
    /// to a version that was rolled back.
    ///
    /// If pacman was interrupted between two versions, the copy of the old version can be used even
    /// if the old version is installed for no kernel, and even if a part of the new version is
    /// present. The same transaction may have upgraded the kernel for which the old version was
    /// installed.
    pub(crate) fn has_usable_source(&self, id: &ModuleId, module: &ModuleFacts) -> bool {
        let other_is =
            |is: &dyn Fn(&ModuleFacts) -> bool| self.versions(&id.name).any(|(_, it)| is(it));
        let is_present =
            |it: &ModuleFacts| it.source == SourcePlace::Present && !self.is_incomplete(it);
        let is_held = |it: &ModuleFacts| it.source == SourcePlace::Kept && self.is_held(it);
        let is_installed =
            |kernel: &KernelRelease| self.is_alive(kernel) && self.is_installed(id, kernel);
        match module.source {
            SourcePlace::Present => !self.is_incomplete(module) || !other_is(&is_held),
            SourcePlace::Kept => {
                (module.pairs.keys().any(is_installed) || self.is_held(module))
                    && !other_is(&is_present)
            }
            SourcePlace::Missing => false,
        }
    }

    /// Returns true if pacman was interrupted while it installed the module's source.
    fn is_incomplete(&self, module: &ModuleFacts) -> bool {
        self.interrupted().any(|it| it.lacking.sources.contains(&module.source_dir))
    }

    /// Returns true if pacman was interrupted while it replaced or removed the module's source.
    pub(crate) fn is_held(&self, module: &ModuleFacts) -> bool {
        self.interrupted().any(|it| it.held.sources.contains(&module.source_dir))
    }

    /// Returns true if pacman was interrupted while it installed or removed the kernel or its
    /// headers.
    pub(crate) fn is_incomplete_kernel(&self, kernel: &KernelRelease) -> bool {
        let mut parts = self.interrupted().flat_map(|it| [&it.unlisted, &it.held]);
        parts.any(|part| part.kernels.contains(kernel))
    }

    /// Returns true if a transaction that has not been completed installs, replaces or removes the
    /// kernel.
    pub(crate) fn is_left_to_pacman(&self, kernel: &KernelRelease) -> bool {
        let open = self.transactions.iter().filter(|it| it.stage != Stage::Completed);
        let mut parts = open.flat_map(|it| [&it.arrived, &it.lacking, &it.departed, &it.held]);
        parts.any(|part| part.kernels.contains(kernel))
    }

    fn interrupted(&self) -> impl Iterator<Item = &TransactionFacts> {
        self.transactions.iter().filter(|it| it.stage == Stage::Interrupted)
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

    /// Returns the facts about a module for a kernel, or `None` if there are none.
    #[must_use]
    pub(crate) fn pair(&self, id: &ModuleId, kernel: &KernelRelease) -> Option<&Pair> {
        self.modules.get(id)?.pairs.get(kernel)
    }

    /// Returns the facts about a module's dkms.conf for a kernel, or `None` if it was not evaluated
    /// successfully.
    #[must_use]
    pub(crate) fn conf(&self, id: &ModuleId, kernel: &KernelRelease) -> Option<&ConfFacts> {
        self.pair(id, kernel)?.conf.as_ref()?.as_ref().ok()
    }

    /// Returns true if the kernel itself is installed, and not just its headers or leftover files.
    #[must_use]
    pub(crate) fn is_alive(&self, kernel: &KernelRelease) -> bool {
        self.kernels.get(kernel).is_some_and(|about| about.kernel.alive)
    }

    /// Returns the kernels that transactions have changed, according to pending work and journals.
    #[must_use]
    pub fn changed_kernels(&self) -> BTreeSet<KernelRelease> {
        let is_of_one_module = |work: &&PendingWork| {
            matches!(work, PendingWork::Install { .. } | PendingWork::Uninstall { .. })
        };
        let changes = self.pending.iter().filter(|work| !is_of_one_module(work));
        transactions::concerned(changes, &self.transactions).kernels
    }

    /// Returns true if it is certain that no kernel with this release is installed.
    #[must_use]
    pub(crate) fn is_gone(&self, kernel: &KernelRelease) -> bool {
        self.kernels_known && !self.is_alive(kernel) && !self.kernel_links.contains(kernel)
    }

    /// Returns true if a kernel has headers, which builds require.
    #[must_use]
    pub(crate) fn has_headers(&self, kernel: &KernelRelease) -> bool {
        self.kernels.get(kernel).is_some_and(KernelFacts::has_headers)
    }

    /// Returns true if a version of the module is built for the kernel but not installed, because
    /// the kernel itself has the same or a newer module.
    #[must_use]
    pub(crate) fn is_declined(&self, name: &ModuleName, kernel: &KernelRelease) -> bool {
        let declined = |id| self.built(id, kernel).is_some_and(|built| built.declined.is_some());
        self.versions(name).any(|(id, _)| declined(id))
    }

    /// Returns the names of the modules that should be installed for a kernel but are not.
    ///
    /// Omits modules with AUTOINSTALL=no, modules that BUILD_EXCLUSIVE_* excludes, and modules that
    /// the kernel ships in the same or a newer version.
    #[must_use]
    pub fn missing(&self, kernel: &KernelRelease) -> BTreeSet<&ModuleName> {
        let is_wanted = |id: &&ModuleId| {
            self.conf(id, kernel)
                .is_none_or(|conf| conf.autoinstall != Autoinstall::No && conf.excluded.is_none())
        };
        let wanted = self.newest_sources(&BTreeSet::new()).into_iter().filter(is_wanted);
        let is_there =
            |name| self.installed(name, kernel).is_some() || self.is_declined(name, kernel);
        wanted.map(|id| &id.name).filter(|name| !is_there(name)).collect()
    }

    /// Returns true if depmod's index of a kernel is missing or older than an installed module.
    #[must_use]
    pub(crate) fn index_outdated(&self, kernel: &KernelRelease) -> bool {
        self.kernels.get(kernel).is_some_and(|about| about.index_outdated)
    }

    /// Returns the names of a module's objects for a kernel, as modprobe compares them: with `_`
    /// instead of `-`.
    ///
    /// These are the objects in the kernel's directory, the objects of the build, and the objects
    /// that the dkms.conf names.
    #[must_use]
    pub(crate) fn objects(&self, id: &ModuleId, kernel: &KernelRelease) -> BTreeSet<String> {
        let placed = self.kernels.get(kernel).into_iter().flat_map(|it| it.inventory.of(id));
        let placed = placed.filter_map(|object| object.path.rsplit('/').next());
        let record = self.built(id, kernel).and_then(|built| built.record.as_ref());
        let built = record.into_iter().flat_map(|it| it.objects.iter().map(|it| it.name.as_str()));
        let files = placed.chain(built).filter_map(|file| Some(ObjectName::parse(file)?.module));
        let conf = self.conf(id, kernel);
        let named = conf.into_iter().flat_map(|conf| conf.objects.iter().cloned());
        files.chain(named).map(|name| name.replace('-', "_")).collect()
    }

    /// Returns the fingerprint of an existing build's inputs. Attempts to install the build are
    /// counted under this fingerprint.
    #[must_use]
    pub(crate) fn built_inputs(&self, id: &ModuleId, kernel: &KernelRelease) -> Digest {
        let record = self.built(id, kernel).and_then(|built| built.record.as_ref());
        record.map_or_else(Digest::of_nothing, |record| record.inputs.fingerprint())
    }

    /// Returns the existing build of a module for a kernel, or `None` if there is none.
    #[must_use]
    pub(crate) fn built(&self, id: &ModuleId, kernel: &KernelRelease) -> Option<&Built> {
        self.pair(id, kernel)?.built.as_ref()
    }
}
