//! Which objects a close look found in order, kept under the stamps of the files, so that the next
//! `dkms status` need not read them again.
//!
//! Everybody may ask for the status, and nobody who only asks may write: whoever changes the trees
//! looks closely once, when all is done.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Stamp};
use crate::durable::{self, FileError};
use crate::names::{ModuleId, ModuleName, ModuleVersion};
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
    /// Reads what was seen, without the modules whose directories have changed. Nothing is needed:
    /// what is not known is looked at.
    #[must_use]
    pub fn read(trees: &Trees) -> Self {
        Self::on_disk(trees).without_what_changed(trees)
    }

    fn without_what_changed(mut self, trees: &Trees) -> Self {
        let modules: Vec<(&ModuleName, &Module)> = self.modules.iter().collect();
        let hold = on_all_cores(&modules, MODULES_PER_THREAD, |(name, module)| {
            module.holds(&trees.module(name))
        });
        let mut hold = hold.into_iter();
        self.modules.retain(|_, _| hold.next().unwrap_or_default());
        self
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
            let known = self.look(&added.id, built);
            let known = known.filter(|look| look.holds(trees, &added.id, built));
            let look = known.cloned().or_else(|| Look::closely(trees, &added.id, built));
            (built.clone(), look)
        };
        (added.id.version.clone(), added.kernels.iter().map(look).collect())
    }

    /// Whether the objects of a build are known to be those that were built and, if it is
    /// installed, those that stand in the kernel's directory.
    #[must_use]
    pub fn in_order(&self, trees: &Trees, id: &ModuleId, built: &BuiltFor) -> bool {
        self.look(id, built).is_some_and(|look| look.holds(trees, id, built))
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
        directories: &BTreeMap<PathBuf, Metadata>,
    ) -> Option<Self> {
        let mut module = Self { stamp: Stamp::of(&[]).0, versions, empty: Vec::new() };
        let named = module.directories(top);
        let empty = directories.keys().filter(|path| !named.contains(path));
        module.empty = empty.filter_map(|path| Some(path.strip_prefix(top).ok()?.into())).collect();
        let all = module.directories(top);
        let stats: Option<Vec<_>> = all.iter().map(|path| directories.get(path).cloned()).collect();
        let (stamp, settled) = Stamp::of(&stats?);
        settled.then_some(Self { stamp, ..module })
    }

    /// Whether its directories are as they were.
    fn holds(&self, top: &Path) -> bool {
        let all = self.directories(top);
        let stats: Option<Vec<_>> = all.iter().map(|path| stat_of_directory(path)).collect();
        stats.is_some_and(|stats| Stamp::of(&stats).0 == self.stamp)
    }

    /// Its directories, in a fixed order.
    fn directories(&self, top: &Path) -> Vec<PathBuf> {
        let mut directories = vec![top.to_owned()];
        for (version, builds) in &self.versions {
            let version = top.join(version);
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
        directories.extend(self.empty.iter().map(|below| top.join(below)));
        directories
    }
}

impl Look {
    /// Whether every file still is what it was.
    fn holds(&self, trees: &Trees, id: &ModuleId, built: &BuiltFor) -> bool {
        let stats = Files::of(trees, id, built).stats(&self.objects);
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

/// Where the files of a build are.
struct Files {
    /// `T/M/V/K/A/module`.
    stored: PathBuf,
    /// `L/K`; nothing if it is built and not installed.
    placed: Option<PathBuf>,
}

impl Files {
    fn of(trees: &Trees, id: &ModuleId, built: &BuiltFor) -> Self {
        Self {
            stored: trees.built(id, &built.kernel, &built.arch).join("module"),
            placed: built.installed.then(|| trees.kernel(&built.kernel)),
        }
    }

    /// The stored file, and the placed one if there should be one.
    fn of_object(&self, object: &Object) -> (PathBuf, Option<PathBuf>) {
        let placed = self.placed.as_ref();
        let placed = placed.map(|kernel| kernel.join(&object.location).join(&object.name));
        (self.stored.join(&object.name), placed)
    }

    /// What stat says of all files, if all are there.
    fn stats(&self, objects: &[Object]) -> Option<Vec<Metadata>> {
        let files = objects.iter().flat_map(|object| {
            let (stored, placed) = self.of_object(object);
            [Some(stored), placed].into_iter().flatten()
        });
        files.map(|path| stat_of_file(&path)).collect()
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

/// Of a file that is none of links: those say nothing of what they lead to.
fn stat_of_file(path: &Path) -> Option<Metadata> {
    fs::symlink_metadata(path).ok().filter(Metadata::is_file)
}

/// Of a directory, which may be reached by a link.
fn stat_of_directory(path: &Path) -> Option<Metadata> {
    fs::metadata(path).ok().filter(Metadata::is_dir)
}

/// Of all directories of a module, if they tell what is built of it.
fn stats_of_directories(trees: &Trees, name: &ModuleName) -> Option<BTreeMap<PathBuf, Metadata>> {
    let directories = State::folders(trees, name)?.into_iter();
    directories.map(|path| stat_of_directory(&path).map(|stat| (path, stat))).collect()
}

fn file(trees: &Trees) -> PathBuf {
    trees.cache().join("status")
}

#[cfg(test)]
mod tests;
