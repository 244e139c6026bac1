//! The inventory of a kernel: the objects that alpm-dkms has placed in the kernel's directory.
//!
//! The inventory is a file in that directory, so it is copied, rolled back and removed together
//! with the objects. An object is listed before it is placed, and its stat signature is added
//! afterwards. Comparing the directory with this file shows whether a module is in place, which
//! files belong to it and whether they have changed.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::placed::{Condition, Placed, slot, stat_of};
use crate::machine::{Machine, Trees};
use crate::names::{KernelRelease, ModuleId, ModuleName};
use crate::os::digest::Digest;
use crate::os::durable::{self, Durability, FileError};
use crate::os::{paths, symlinks};

/// The name of the inventory in a kernel's directory. Names that start with it belong to alpm-dkms.
pub(crate) const INVENTORY: &str = ".dkms-inventory";

/// The suffix for the file name of an inventory that cannot be read or has another format. Such a
/// file is kept but not used.
const UNREAD: &str = ".unread";

/// The version of the file format.
const FORMAT: u32 = 1;

/// The objects that alpm-dkms has placed in the directory of one kernel.
///
/// Two modules can each contain an object with the same path. The inventory then lists both, and
/// the one that is listed last is in place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    dir: PathBuf,
    /// The dkms tree of the run; `None` for the default tree.
    tree: Option<PathBuf>,
    objects: Vec<Placed>,
    /// Whether the file exists but cannot be read or has another format.
    is_unread: bool,
}

#[derive(Serialize, Deserialize)]
struct InventoryFile {
    format: u32,
    #[serde(default, rename = "object")]
    objects: Vec<Placed>,
}

/// The field that an inventory file in any format contains.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl Inventory {
    /// Reads the inventory of a kernel.
    ///
    /// Without a file the inventory is empty. A file that cannot be read, has another format or
    /// lists a path outside the kernel's directory is ignored, but kept under another name when the
    /// inventory is written. Its objects count as not listed, so alpm-dkms does not remove them.
    #[must_use]
    pub fn read(trees: &Trees, kernel: &KernelRelease) -> Self {
        let (dir, tree) = (trees.kernel(kernel), other_tree(trees));
        let path = dir.join(INVENTORY);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let is_unread =
                    error.kind() != ErrorKind::NotFound && error.kind() != ErrorKind::NotADirectory;
                return Self { dir, tree, objects: Vec::new(), is_unread };
            }
        };
        let format = toml::from_str(&text).map_or(0, |any: AnyFormat| any.format);
        let file = Some(()).filter(|()| format == FORMAT).map(|()| toml::from_str(&text));
        match file {
            Some(Ok(InventoryFile { objects, .. }))
                if objects.iter().all(|object| stays_inside(&object.path)) =>
            {
                Self { dir, tree, objects, is_unread: false }
            }
            _ => {
                log::warn!("{}: ignored: damaged, or not in format {FORMAT}", path.display());
                Self { dir, tree, objects: Vec::new(), is_unread: true }
            }
        }
    }

    /// Writes the inventory, or removes the file if there are no objects.
    ///
    /// The file is synced at the end of the run. If a power cut loses or damages it before that,
    /// the installation is still pending, and the objects are recognised by their digests.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub(crate) fn write(&mut self) -> Result<(), FileError> {
        let path = self.dir.join(INVENTORY);
        if std::mem::take(&mut self.is_unread) {
            let kept = self.dir.join(format!("{INVENTORY}{UNREAD}"));
            fs::rename(&path, &kept).map_err(FileError::when("rename", &path))?;
        }
        if self.objects.is_empty() {
            return durable::remove_file_if_there(&path).map(|_| ());
        }
        let file = InventoryFile { format: FORMAT, objects: self.objects.clone() };
        let text = toml::to_string(&file)
            .map_err(std::io::Error::other)
            .map_err(FileError::when("write", &path))?;
        durable::write_with(&path, text.as_bytes(), Durability::None)
    }

    /// Returns all objects. Of several objects at one path, the last one is in place.
    pub fn objects(&self) -> impl Iterator<Item = &Placed> {
        self.objects.iter()
    }

    /// Returns the objects that are in place: for each path, only the object on top.
    pub fn on_top(&self) -> impl Iterator<Item = &Placed> {
        self.objects.iter().filter(|object| self.is_on_top(object))
    }

    /// Returns the objects of the module version `id` from this dkms tree.
    pub fn of<'a>(&'a self, id: &'a ModuleId) -> impl Iterator<Item = &'a Placed> {
        self.own().filter(move |object| object.module == *id)
    }

    /// Returns the listed module versions of this dkms tree.
    pub fn modules(&self) -> BTreeSet<&ModuleId> {
        self.own().map(|object| &object.module).collect()
    }

    /// Returns the objects of modules of this dkms tree.
    pub(crate) fn own(&self) -> impl Iterator<Item = &Placed> {
        self.objects.iter().filter(|object| object.tree == self.tree)
    }

    /// Returns the object that is in place at `path`. Ignores the compression suffix.
    pub(crate) fn top(&self, path: &str) -> Option<&Placed> {
        self.objects.iter().rfind(|object| slot(&object.path) == slot(path))
    }

    /// Returns the object at `path` that belongs to any version of the module `name`. Ignores the
    /// compression suffix.
    pub(crate) fn of_module_at(&self, name: &ModuleName, path: &str) -> Option<&Placed> {
        let is_it = |it: &&Placed| it.module.name == *name && slot(&it.path) == slot(path);
        self.objects.iter().rfind(is_it)
    }

    /// Returns true if the module `id` has an unchanged object with the digest `digest` in place at
    /// `path`. Does not read the object's file.
    pub(crate) fn has_intact(
        &self,
        trees: &Trees,
        id: &ModuleId,
        path: &str,
        digest: &Digest,
    ) -> bool {
        self.top(path).is_some_and(|top| {
            (&top.module, &top.digest, top.path.as_str()) == (id, digest, path)
                && top.condition == Condition::Intact
                && top.stat.is_some()
                && stat_of(trees, &self.dir.join(path)) == top.stat
        })
    }

    pub(crate) fn is_on_top(&self, object: &Placed) -> bool {
        self.top(&object.path).is_some_and(|top| top.module == object.module)
    }

    /// Adds the objects of an installed module below all others, unless the inventory already lists
    /// an object of any version of this module. Returns true if the objects were added.
    ///
    /// This is needed because dkms and older versions of alpm-dkms do not keep an inventory.
    pub(crate) fn assume(
        &mut self,
        id: &ModuleId,
        objects: impl IntoIterator<Item = Placed>,
    ) -> bool {
        let is_unlisted = self.objects.iter().all(|object| object.module.name != id.name);
        if is_unlisted {
            let tree = self.tree.clone();
            let own = |object: Placed| Placed { tree: tree.clone(), ..object };
            self.objects.splice(0..0, objects.into_iter().map(own));
        }
        is_unlisted
    }

    /// Returns the directory of the kernel.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lists an object. If the inventory already lists an object of any version of the same module
    /// at the same path, the new object takes its position. Otherwise, the new object is added on
    /// top.
    pub(crate) fn list(&mut self, object: Placed) {
        let object = Placed { tree: self.tree.clone(), ..object };
        let is_it = |it: &Placed| {
            it.module.name == object.module.name && slot(&it.path) == slot(&object.path)
        };
        match self.objects.iter().position(is_it) {
            Some(at) => {
                self.objects.splice(at..=at, [object]);
            }
            None => self.objects.push(object),
        }
    }

    /// Removes from the list the object of the module version `id` at `path`.
    pub(crate) fn strike(&mut self, id: &ModuleId, path: &str) {
        self.objects.retain(|it| it.module != *id || slot(&it.path) != slot(path));
    }

    /// Moves the object of the module `id` at `path` above the other objects at this path.
    pub(crate) fn raise(&mut self, id: &ModuleId, path: &str) {
        let is_it = |it: &Placed| it.module == *id && slot(&it.path) == slot(path);
        let raised: Vec<Placed> = self.objects.extract_if(.., |it| is_it(it)).collect();
        self.objects.extend(raised);
    }

    /// Renames a module. Returns true if the inventory lists it.
    pub(crate) fn rename(&mut self, old: &ModuleId, new: &ModuleId) -> bool {
        let mut renamed = false;
        for object in self.objects.iter_mut().filter(|object| object.module == *old) {
            object.module = new.clone();
            renamed = true;
        }
        renamed
    }

    /// Compares the objects that are in place with their files, and updates the conditions of the
    /// objects. Returns true if this changed the inventory.
    ///
    /// Reads only files whose stat signature has changed.
    pub(crate) fn examine(&mut self, machine: &Machine, kernel: &KernelRelease) -> bool {
        let before = self.clone();
        for object in self.objects.iter_mut().filter(|object| before.is_on_top(object)) {
            object.examine(machine, kernel, &self.dir);
        }
        self.objects != before.objects
    }

    /// Records that the object of the module `id` has been placed at `path`.
    pub(crate) fn mark_placed(&mut self, trees: &Trees, id: &ModuleId, path: &str) {
        for object in self.objects.iter_mut().filter(|it| it.module == *id && it.path == path) {
            object.stat = stat_of(trees, &self.dir.join(path));
            object.condition = Condition::Intact;
        }
    }
}

/// Returns true if `path` is relative and contains no `..`. Only a damaged inventory contains other
/// paths, whose files are not ours.
fn stays_inside(path: &str) -> bool {
    let path = Path::new(path);
    paths::within(path).as_deref() == Some(path)
}

/// Returns the dkms tree, as set with `--dkmstree`, or `None` if it is the default one.
fn other_tree(trees: &Trees) -> Option<PathBuf> {
    let real = |path: &Path| symlinks::resolve(&trees.root, path).unwrap_or(path.to_owned());
    let (tree, default) = (real(&trees.dkms), real(&Trees::under(&trees.root).dkms));
    (tree != default).then(|| symlinks::text_for(&trees.root, &tree))
}

/// Replaces each link in the kernel's directory that points into the build of the module `id` with
/// the file itself: a hard link or, if that fails, a copy. With the setting `symlink_modules`, an
/// installation creates such links.
///
/// Call this function before the build changes: the kernel's modules must not change until the new
/// build is installed.
///
/// # Errors
/// [`FileError`] if a link cannot be replaced.
pub(crate) fn detach_links(
    machine: &Machine,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Result<(), FileError> {
    let trees = &machine.trees;
    let built = trees.built(id, kernel, &machine.arch);
    if !built.is_dir() {
        return Ok(());
    }
    for placed in Inventory::read(trees, kernel).of(id) {
        let link = trees.kernel(kernel).join(&placed.path);
        let Ok(target) = symlinks::resolve(&trees.root, &link) else { continue };
        if !target.starts_with(&built) {
            continue;
        }
        let name = link.file_name().unwrap_or_default().display();
        let new = link.with_file_name(format!("{}{name}.new", durable::UNFINISHED));
        let failed = || FileError::when("replace", &link);
        durable::remove_file_if_there(&new)?;
        if fs::hard_link(&target, &new).is_err() {
            fs::copy(&target, &new).map_err(failed())?;
        }
        fs::rename(&new, &link).map_err(failed())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
