//! Which objects a close look found in order, kept under the stamps of the files, so that the next
//! `dkms status` need not read them again.
//!
//! Everybody may ask for the status, and nobody who only asks may write: whoever changes the trees
//! looks closely once, when all is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Stamp};
use crate::durable::{self, FileError};
use crate::names::{ModuleId, ModuleName};
use crate::record::Record;
use crate::side_by_side::on_all_cores;
use crate::state::{Added, BuiltFor, State, Versions};
use crate::trees::Trees;

/// The layout of the file.
const FORMAT: u32 = 2;

/// Reading the objects of fewer builds than these takes less time than starting a thread.
const BUILDS_PER_THREAD: usize = 2;

/// What is built and in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    format: u32,
    /// By `M/V/K/A`.
    builds: BTreeMap<String, Look>,
    modules: BTreeMap<ModuleName, Names>,
}

/// What is built and installed of a module, as long as no name changes in its directories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Names {
    /// The directories, below the dkms tree.
    folders: Vec<(PathBuf, Stamp)>,
    versions: Versions,
}

/// What was found in order, and what the files were then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Look {
    /// Of the record, which says what there should be.
    record: Stamp,
    objects: Vec<Object>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Object {
    /// Its file name.
    name: String,
    /// Its directory below `L/K`.
    location: String,
    stored: Stamp,
    /// Nothing if it is built and not installed.
    placed: Option<Stamp>,
}

impl Seen {
    /// Reads what was seen. Nothing is needed: what is not known is looked at.
    #[must_use]
    pub fn read(trees: &Trees) -> Self {
        let Ok(text) = fs::read(file(trees)) else { return Self::default() };
        let seen: Self = serde_json::from_slice(&text).unwrap_or_else(|error| {
            // Another version's, most likely.
            log::debug!("{} cannot be used: {error}", file(trees).display());
            Self::default()
        });
        if seen.format == FORMAT { seen } else { Self::default() }
    }

    /// What stands in the dkms tree; directories that are as they were when it was seen are not
    /// listed again.
    #[must_use]
    pub fn state(&self, trees: &Trees) -> State {
        State::read_but(trees, |name| {
            let names = self.modules.get(name)?;
            let is_same = |(folder, then): &(PathBuf, Stamp)| {
                stamp_of_dir(&trees.dkms.join(folder)).is_some_and(|(now, _)| now == *then)
            };
            names.folders.iter().all(is_same).then(|| names.versions.clone())
        })
    }

    /// Looks at what is built in the whole tree, and closely at what changed since the last time.
    ///
    /// # Errors
    /// [`FileError`] if what was seen cannot be written; `dkms status` takes longer then.
    pub fn refresh(trees: &Trees) -> Result<(), FileError> {
        let before = Self::read(trees);
        // The stamps come first: what changes while it is read has another one.
        let names = State::read(trees).modules.into_iter().map(|added| added.id.name);
        let names: BTreeSet<ModuleName> = names.collect();
        let folders = names.into_iter().filter_map(|name| {
            let folders = State::folders(trees, &name)?;
            Some((name, settled_folders(trees, &folders)?))
        });
        let folders: Vec<(ModuleName, Vec<(PathBuf, Stamp)>)> = folders.collect();
        let state = State::read(trees);
        let builds: Vec<(&ModuleId, &BuiltFor)> = state
            .modules
            .iter()
            .flat_map(|added| added.kernels.iter().map(|built| (&added.id, built)))
            .filter(|(_, built)| built.has_module_dir)
            .collect();
        let looks = on_all_cores(&builds, BUILDS_PER_THREAD, |(id, built)| {
            let known = before.look(id, built).filter(|look| look.holds(trees, id, built));
            known.cloned().or_else(|| Look::closely(trees, id, built))
        });
        let keys = builds.iter().map(|(id, built)| key(id, built));
        let builds = keys.zip(looks).filter_map(|(key, look)| Some((key, look?))).collect();
        let modules = folders.into_iter().map(|(name, folders)| {
            let of_name = state.modules.iter().filter(|added| added.id.name == name);
            let version = |added: &Added| (added.id.version.clone(), added.kernels.clone());
            let versions = of_name.map(version).collect();
            (name, Names { folders, versions })
        });
        let now = Self { format: FORMAT, builds, modules: modules.collect() };
        if (&now.builds, &now.modules) == (&before.builds, &before.modules) {
            return Ok(());
        }
        let text = serde_json::to_vec(&now)
            .map_err(std::io::Error::other)
            .map_err(FileError::when("write", &file(trees)))?;
        durable::create_dirs(&trees.cache())?;
        durable::write(&file(trees), &text)
    }

    /// Whether the objects of a build are known to be those that were built and, if it is
    /// installed, those that stand in the kernel's directory.
    #[must_use]
    pub fn in_order(&self, trees: &Trees, id: &ModuleId, built: &BuiltFor) -> bool {
        self.look(id, built).is_some_and(|look| look.holds(trees, id, built))
    }

    fn look(&self, id: &ModuleId, built: &BuiltFor) -> Option<&Look> {
        self.builds.get(&key(id, built))
    }
}

impl Look {
    /// Whether every file still is what it was, and nothing was installed or uninstalled.
    fn holds(&self, trees: &Trees, id: &ModuleId, built: &BuiltFor) -> bool {
        let files = Files { trees, id, built };
        stamp(&files.record()).is_some_and(|(now, _)| now == self.record)
            && self.objects.iter().all(|object| {
                let same = |path: PathBuf, then| stamp(&path).is_some_and(|(now, _)| now == then);
                object.placed.is_some() == built.installed
                    && same(files.stored(&object.name), object.stored)
                    && object
                        .placed
                        .is_none_or(|then| same(files.placed(&object.location, &object.name), then))
            })
    }

    /// Reads the record and the objects; nothing unless all is in order and settled.
    fn closely(trees: &Trees, id: &ModuleId, built: &BuiltFor) -> Option<Self> {
        let files = Files { trees, id, built };
        // The stamps come first: what changes while it is read has another one.
        let record = settled(&files.record())?;
        let recorded = Record::read(&files.record())?;
        let object = |object: crate::record::Object| {
            let (name, location) = (object.name, object.location);
            let stored = settled(&files.stored(&name))?;
            let placed = if built.installed {
                let path = files.placed(&location, &name);
                let placed = settled(&path)?;
                let digest = Digest::of_file(&files.stored(&name)).ok()?;
                if Digest::of_file(&path).ok()? != digest {
                    return None;
                }
                Some(placed)
            } else {
                None
            };
            Some(Object { name, location, stored, placed })
        };
        let objects = recorded.objects.into_iter().map(object).collect::<Option<Vec<_>>>()?;
        (!objects.is_empty()).then_some(Self { record, objects })
    }
}

/// Where the files of a build are.
struct Files<'a> {
    trees: &'a Trees,
    id: &'a ModuleId,
    built: &'a BuiltFor,
}

impl Files<'_> {
    fn record(&self) -> PathBuf {
        Record::path(self.trees, self.id, &self.built.kernel, &self.built.arch)
    }

    fn stored(&self, name: &str) -> PathBuf {
        let BuiltFor { kernel, arch, .. } = self.built;
        self.trees.built(self.id, kernel, arch).join("module").join(name)
    }

    fn placed(&self, location: &str, name: &str) -> PathBuf {
        self.trees.kernel(&self.built.kernel).join(location).join(name)
    }
}

/// The stamp of a file that is none of links: those say nothing of what they lead to.
fn stamp(path: &Path) -> Option<(Stamp, bool)> {
    let meta = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(Stamp::of(&meta))
}

/// The stamp of a directory, which may be reached by a link.
fn stamp_of_dir(path: &Path) -> Option<(Stamp, bool)> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    Some(Stamp::of(&meta))
}

/// The stamps of directories by their places below the dkms tree, if all are settled.
fn settled_folders(trees: &Trees, folders: &[PathBuf]) -> Option<Vec<(PathBuf, Stamp)>> {
    let one = |folder: &PathBuf| {
        let (stamp, settled) = stamp_of_dir(folder)?;
        settled.then_some((folder.strip_prefix(&trees.dkms).ok()?.to_owned(), stamp))
    };
    folders.iter().map(one).collect()
}

fn settled(path: &Path) -> Option<Stamp> {
    stamp(path).and_then(|(stamp, settled)| settled.then_some(stamp))
}

fn key(id: &ModuleId, built: &BuiltFor) -> String {
    format!("{id}/{}/{}", built.kernel, built.arch)
}

fn file(trees: &Trees) -> PathBuf {
    trees.cache().join("status.json")
}

#[cfg(test)]
mod tests;
