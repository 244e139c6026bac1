//! Which objects a close look found in order, kept under the stamps of the files, so that the next
//! `dkms status` need not read them again.
//!
//! Everybody may ask for the status, and nobody who only asks may write: whoever changes the trees
//! looks closely once, when all is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Stamp, Stat};
use crate::durable::{self, FileError};
use crate::names::{KernelRelease, ModuleId, ModuleName, ModuleVersion};
use crate::record::Record;
use crate::side_by_side::on_all_cores;
use crate::state::{Added, BuiltFor, State};
use crate::trees::Trees;

/// The layout of the file.
const FORMAT: u32 = 3;

/// Looking at fewer modules than these takes less time than starting a thread.
const MODULES_PER_THREAD: usize = 8;

/// What is built and in order. On disk it is a postcard, which takes less time to read than a text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    format: u32,
    modules: BTreeMap<ModuleName, Module>,
}

/// What is built and installed of a module, as long as no name changes in its directories. That a
/// record is replaced shows there, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Module {
    /// Of its directories, all together.
    stamp: Stamp,
    versions: Vec<(ModuleVersion, Vec<Build>)>,
    /// Its directories in which nothing is built, below its own. The others have the names of
    /// what is built in them.
    empty: Vec<PathBuf>,
}

/// A build, and what was found in order.
type Build = (BuiltFor, Option<Look>);

/// The objects that are as they were built and, if it is installed, stand in their places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Look {
    /// Of the stored and the placed files, all together.
    stamp: Stamp,
    objects: Vec<Object>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Object {
    /// Its file name.
    name: String,
    /// Its directory below `L/K`.
    location: String,
}

impl Seen {
    /// Reads what was seen, without what has changed since. Nothing is needed: what is not known is
    /// looked at.
    #[must_use]
    pub fn read(trees: &Trees) -> Self {
        Self::on_disk(trees).without_what_changed(trees)
    }

    fn without_what_changed(mut self, trees: &Trees) -> Self {
        let kernels = self.open_kernels(trees);
        let modules: Vec<(&ModuleName, &Module)> = self.modules.iter().collect();
        let hold = on_all_cores(&modules, MODULES_PER_THREAD, |(name, module)| {
            let top = open(&trees.module(name))?;
            module.holds(&top).then(|| module.which_looks_hold(&top, &kernels))
        });
        let mut hold = hold.into_iter();
        self.modules.retain(|_, module| {
            let Some(looks) = hold.next().flatten() else { return false };
            for ((_, look), holds) in module.builds_mut().zip(looks) {
                look.take_if(|_| !holds);
            }
            true
        });
        self
    }

    /// The directories of the kernels that something is installed for: the way to their files is
    /// shorter from there.
    fn open_kernels(&self, trees: &Trees) -> BTreeMap<KernelRelease, OwnedFd> {
        let builds = self.modules.values().flat_map(Module::builds).map(|(_, (built, _))| built);
        let kernels: BTreeSet<&KernelRelease> =
            builds.filter(|built| built.installed).map(|built| &built.kernel).collect();
        let kernels = kernels.into_iter();
        kernels.filter_map(|it| Some((it.clone(), open(&trees.kernel(it))?))).collect()
    }

    fn on_disk(trees: &Trees) -> Self {
        let Ok(bytes) = fs::read(file(trees)) else { return Self::default() };
        let seen: Self = postcard::from_bytes(&bytes).unwrap_or_else(|error| {
            // Another version's, most likely.
            log::debug!("{} cannot be used: {error}", file(trees).display());
            Self::default()
        });
        if seen.format == FORMAT { seen } else { Self::default() }
    }

    /// What stands in the dkms tree; the directories of modules that are known are not listed.
    #[must_use]
    pub fn state(&self, trees: &Trees) -> State {
        State::read_but(trees, |name| {
            let versions = &self.modules.get(name)?.versions;
            let kernels =
                |builds: &[Build]| builds.iter().map(|(built, _)| built.clone()).collect();
            Some(versions.iter().map(|(it, builds)| (it.clone(), kernels(builds))).collect())
        })
    }

    /// Looks at what is built in the whole tree, and closely at what changed since the last time.
    ///
    /// # Errors
    /// [`FileError`] if what was seen cannot be written; `dkms status` takes longer then.
    pub fn refresh(trees: &Trees) -> Result<(), FileError> {
        let before = Self::on_disk(trees);
        let known = before.clone().without_what_changed(trees);
        let names = State::names(trees);
        // The stamps come first: what changes while it is read has another one.
        let directories = on_all_cores(&names, MODULES_PER_THREAD, |name| {
            if known.modules.contains_key(name) { None } else { stats_of_directories(trees, name) }
        });
        let state = known.state(trees);
        let modules: Vec<_> = names.into_iter().zip(directories).collect();
        let modules = on_all_cores(&modules, 1, |(name, directories)| {
            let of_name = state.modules.iter().filter(|added| added.id.name == *name);
            let versions = of_name.map(|added| known.look_again(trees, added)).collect();
            let module = match known.modules.get(name) {
                Some(Module { stamp, empty, .. }) => {
                    Some(Module { stamp: *stamp, versions, empty: empty.clone() })
                }
                None => Module::new(&trees.module(name), versions, directories.as_ref()?),
            };
            Some((name.clone(), module?))
        });
        let now = Self { format: FORMAT, modules: modules.into_iter().flatten().collect() };
        if now == before || now.modules.is_empty() && !file(trees).exists() {
            return Ok(());
        }
        let bytes = postcard::to_stdvec(&now)
            .map_err(io::Error::other)
            .map_err(FileError::when("write", &file(trees)))?;
        durable::create_dirs(&trees.cache())?;
        durable::write(&file(trees), &bytes)
    }

    /// All builds of a module version, looked at closely where they are not known to be in order.
    fn look_again(&self, trees: &Trees, added: &Added) -> (ModuleVersion, Vec<Build>) {
        let look = |built: &BuiltFor| {
            let known = self.look(&added.id, built).cloned();
            let look = known.or_else(|| Look::closely(trees, &added.id, built));
            (built.clone(), look)
        };
        (added.id.version.clone(), added.kernels.iter().map(look).collect())
    }

    /// Whether the objects of a build are known to be those that were built and, if it is
    /// installed, those that stand in the kernel's directory.
    #[must_use]
    pub fn in_order(&self, id: &ModuleId, built: &BuiltFor) -> bool {
        self.look(id, built).is_some()
    }

    fn look(&self, id: &ModuleId, built: &BuiltFor) -> Option<&Look> {
        let versions = &self.modules.get(&id.name)?.versions;
        let (_, builds) = versions.iter().find(|(version, _)| *version == id.version)?;
        builds.iter().find(|(known, _)| known == built)?.1.as_ref()
    }
}

impl Module {
    /// What is known of the module in the directory `top`, if nothing in its `directories` may
    /// still change unseen.
    fn new(
        top: &Path,
        versions: Vec<(ModuleVersion, Vec<Build>)>,
        directories: &BTreeMap<PathBuf, Stat>,
    ) -> Option<Self> {
        let mut module = Self { stamp: Stamp::of(&[]).0, versions, empty: Vec::new() };
        let named: Vec<PathBuf> =
            module.directories().into_iter().map(|below| top.join(below)).collect();
        let empty = directories.keys().filter(|path| !named.contains(path));
        module.empty = empty.filter_map(|path| Some(path.strip_prefix(top).ok()?.into())).collect();
        let all = module.directories().into_iter();
        let stats: Option<Vec<_>> =
            all.map(|below| directories.get(&top.join(below)).copied()).collect();
        let (stamp, settled) = Stamp::of(&stats?);
        settled.then_some(Self { stamp, ..module })
    }

    /// Whether its directories are as they were; `top` is the first of them, open.
    fn holds(&self, top: &OwnedFd) -> bool {
        let all = self.directories().into_iter();
        let stats: Option<Vec<_>> = all.map(|below| stat_of_directory(top, &below)).collect();
        stats.is_some_and(|stats| Stamp::of(&stats).0 == self.stamp)
    }

    /// Of each build, in order, whether its objects are as they were.
    fn which_looks_hold(
        &self,
        top: &OwnedFd,
        kernels: &BTreeMap<KernelRelease, OwnedFd>,
    ) -> Vec<bool> {
        let holds = |(version, (built, look)): (&ModuleVersion, &Build)| {
            let kernel = kernels.get(&built.kernel);
            look.as_ref().is_some_and(|look| {
                Files::near(top, kernel, version, built).is_some_and(|files| look.holds(&files))
            })
        };
        self.builds().map(holds).collect()
    }

    fn builds(&self) -> impl Iterator<Item = (&ModuleVersion, &Build)> {
        self.versions.iter().flat_map(|(it, builds)| builds.iter().map(move |build| (it, build)))
    }

    fn builds_mut(&mut self) -> impl Iterator<Item = &mut Build> {
        self.versions.iter_mut().flat_map(|(_, builds)| builds)
    }

    /// Its directories, seen from its own, in a fixed order.
    fn directories(&self) -> Vec<PathBuf> {
        let mut directories = vec![PathBuf::from(".")];
        for (version, builds) in &self.versions {
            let version = PathBuf::from(version.as_str());
            // All architectures of a kernel stand one after the other.
            for builds in builds.chunk_by(|(one, _), (next, _)| one.kernel == next.kernel) {
                let kernel = builds.first().map(|(built, _)| version.join(&built.kernel));
                let arch =
                    |dir: &PathBuf| builds.iter().map(|(it, _)| dir.join(&it.arch)).collect();
                let arches: Vec<PathBuf> = kernel.as_ref().map(arch).unwrap_or_default();
                directories.extend(arches.into_iter().chain(kernel));
            }
            directories.push(version);
        }
        directories.extend(self.empty.iter().cloned());
        directories
    }
}

impl Look {
    /// Whether every file still is what it was.
    fn holds(&self, files: &Files<'_>) -> bool {
        let stats = files.stats(&self.objects);
        stats.is_some_and(|stats| Stamp::of(&stats).0 == self.stamp)
    }

    /// Reads the record and the objects; nothing unless all is in order and settled.
    fn closely(trees: &Trees, id: &ModuleId, built: &BuiltFor) -> Option<Self> {
        let recorded = Record::read(&Record::path(trees, id, &built.kernel, &built.arch))?;
        let object = |it: crate::record::Object| Object { name: it.name, location: it.location };
        let objects: Vec<Object> = recorded.objects.into_iter().map(object).collect();
        let files = Files::of(trees, id, built);
        // The stamp comes first: what changes while it is read has another one.
        let (stamp, settled) = Stamp::of(&files.stats(&objects)?);
        let in_order = settled && !objects.is_empty() && files.are_same(&objects);
        in_order.then_some(Self { stamp, objects })
    }
}

/// Where the files of a build are: each directory with an open one that its path begins at.
struct Files<'open> {
    /// `T/M/V/K/A/module`.
    stored: (BorrowedFd<'open>, PathBuf),
    /// `L/K`; nothing if it is built and not installed.
    placed: Option<(BorrowedFd<'open>, PathBuf)>,
}

impl<'open> Files<'open> {
    /// By their whole paths.
    fn of(trees: &Trees, id: &ModuleId, built: &BuiltFor) -> Self {
        Self {
            stored: (CWD, trees.built(id, &built.kernel, &built.arch).join("module")),
            placed: built.installed.then(|| (CWD, trees.kernel(&built.kernel))),
        }
    }

    /// From the open directories of the module and the kernel; nothing if the kernel has none.
    fn near(
        module: &'open OwnedFd,
        kernel: Option<&'open OwnedFd>,
        version: &ModuleVersion,
        built: &BuiltFor,
    ) -> Option<Self> {
        let stored = Path::new(version.as_str()).join(&built.kernel).join(&built.arch);
        let placed = match built.installed {
            true => Some((kernel?.as_fd(), PathBuf::new())),
            false => None,
        };
        Some(Self { stored: (module.as_fd(), stored.join("module")), placed })
    }

    /// The stored file, and the placed one if there should be one.
    fn of_object(&self, object: &Object) -> (PathBuf, Option<PathBuf>) {
        let placed = self.placed.as_ref();
        let placed = placed.map(|(_, kernel)| kernel.join(&object.location).join(&object.name));
        (self.stored.1.join(&object.name), placed)
    }

    /// What stat says of all files, if all are there.
    fn stats(&self, objects: &[Object]) -> Option<Vec<Stat>> {
        let mut stats = Vec::with_capacity(2 * objects.len());
        for object in objects {
            let (stored, placed) = self.of_object(object);
            stats.push(stat_of_file(self.stored.0, &stored)?);
            if let Some(((kernel, _), placed)) = self.placed.as_ref().zip(placed) {
                stats.push(stat_of_file(*kernel, &placed)?);
            }
        }
        Some(stats)
    }

    /// Whether what is placed is what is stored.
    fn are_same(&self, objects: &[Object]) -> bool {
        objects.iter().all(|object| match self.of_object(object) {
            (_, None) => true,
            (stored, Some(placed)) => {
                let digests = (Digest::of_file(&stored).ok(), Digest::of_file(&placed).ok());
                digests.0.is_some() && digests.0 == digests.1
            }
        })
    }
}

/// Opens a directory for ways that begin at it.
fn open(dir: &Path) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).ok()
}

/// Of a file that is none of links: those say nothing of what they lead to.
fn stat_of_file(from: impl AsFd, path: &Path) -> Option<Stat> {
    Stat::at(from, path).ok().filter(Stat::is_file)
}

/// Of a directory, which may be reached by a link.
fn stat_of_directory(from: impl AsFd, path: &Path) -> Option<Stat> {
    Stat::behind_links(from, path).ok().filter(Stat::is_directory)
}

/// Of all directories of a module, if they tell what is built of it.
fn stats_of_directories(trees: &Trees, name: &ModuleName) -> Option<BTreeMap<PathBuf, Stat>> {
    let directories = State::folders(trees, name)?.into_iter();
    directories.map(|path| stat_of_directory(CWD, &path).map(|stat| (path, stat))).collect()
}

fn file(trees: &Trees) -> PathBuf {
    trees.cache().join("status")
}

#[cfg(test)]
mod tests;
