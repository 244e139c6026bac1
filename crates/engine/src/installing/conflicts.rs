//! Decides whether to install an object if the kernel's directory already contains one with the
//! same name (dkms-behaviour 5.3).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::dkms_tree::{BuiltObject, Condition, Inventory, Placed, RefusedObject};
use crate::installing::BuiltModule;
use crate::installing::rivals::rivals;
use crate::machine::{Machine, owner_of};
use crate::names::{KernelRelease, ModuleId};
use crate::objects::{ObjectName, Payload, read_stored_modinfo};
use crate::os::digest::Digest;
use crate::version;

/// The way in which an object is installed.
#[derive(Debug)]
pub(crate) enum Choice {
    /// The object replaces the file at its path, if there is one.
    Place,
    /// The file at the object's path is the same object, apart from signature and compression.
    Keep,
    /// The file at the object's path was installed by this module and has been changed since. It is
    /// kept. Contains the reason.
    Leave(String),
    /// The file at the object's path belongs to another module and is kept. The object replaces it
    /// when that module is uninstalled.
    Below,
    /// The object is not installed.
    Refuse(Refused),
}

/// An object that must not be installed.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The object and the reason.
    pub(crate) object: RefusedObject,
    /// Whether the existing object belongs to another dkms module or to another version of the
    /// module, and not to the kernel.
    pub(crate) by_dkms: bool,
}

/// Returns the built objects of `new`, each with the way in which it is installed.
///
/// dkms compares each object with the first file of the same name that it finds. This function
/// compares each object with the file that modprobe would load, and ignores all files that
/// alpm-dkms installed. If the command line names `new`, it ignores only the files of `new` itself.
///
/// `obsolete_by` is the value of OBSOLETE_BY.
pub(crate) fn choose(
    new: &BuiltModule<'_>,
    inventory: &Inventory,
    obsolete_by: Option<&str>,
) -> Vec<(BuiltObject, Choice)> {
    let BuiltModule { machine, id, kernel, .. } = *new;
    let forced = machine.always_installs(&id.name);
    let limit = obsolete_by.filter(|limit| !forced && is_obsolete(kernel, limit));
    let ignores_version = forced || machine.ignores_version_of(&id.name);
    let names: BTreeSet<String> =
        new.objects().iter().filter_map(|it| Some(ObjectName::parse(&it.name)?.module)).collect();
    let rivals = match ignores_version || limit.is_some() {
        true => BTreeMap::new(),
        false => {
            let places: Vec<String> = new.objects().iter().map(BuiltObject::path).collect();
            rivals(inventory, &names, &places)
        }
    };
    let chooser = Chooser { new, inventory, ignores_version, rivals };
    let choose = |object: &BuiltObject| {
        let choice = match limit {
            Some(limit) => {
                let why = format!("part of the kernel since {limit} (OBSOLETE_BY)");
                refuse(object, None, why, false)
            }
            None => chooser.choose(object),
        };
        (object.clone(), choice)
    };
    new.objects().iter().map(choose).collect()
}

/// Returns true if `kernel` is at least as new as `limit`, the first kernel that makes the module
/// obsolete. Ignores dashes in both.
fn is_obsolete(kernel: &KernelRelease, limit: &str) -> bool {
    let key = |text: &str| version::key(&text.replace('-', ""));
    key(kernel.as_str()) >= key(limit)
}

fn refuse(object: &BuiltObject, by: Option<String>, why: String, by_dkms: bool) -> Choice {
    let object = RefusedObject { name: object.name.clone(), by, why };
    Choice::Refuse(Refused { object, by_dkms })
}

/// Refuses to replace `file`, which `package` owns, with `object`.
fn leave_to_package(object: &BuiltObject, file: &Path, package: &str) -> Choice {
    let why = format!("{} belongs to the package {package}", file.display());
    refuse(object, Some(object.path()), why, false)
}

struct Chooser<'a> {
    new: &'a BuiltModule<'a>,
    inventory: &'a Inventory,
    ignores_version: bool,
    /// The files that compete with the objects, by module name.
    rivals: BTreeMap<String, PathBuf>,
}

impl Chooser<'_> {
    fn choose(&self, object: &BuiltObject) -> Choice {
        let choice = match self.inventory.top(&object.path()) {
            Some(top) => self.beside_listed(object, top),
            None => self.beside_unlisted(object),
        };
        if !matches!(choice, Choice::Place) {
            return choice;
        }
        let rival = ObjectName::parse(&object.name)
            .and_then(|name| self.rivals.get(&name.module))
            .and_then(|rival| Some((rival, self.refusal(rival, object, None)?)));
        match rival {
            Some((rival, why)) => {
                let by = rival.strip_prefix(self.inventory.dir()).unwrap_or(rival);
                refuse(object, Some(by.to_string_lossy().into_owned()), why, false)
            }
            None => Choice::Place,
        }
    }

    /// Returns the choice for an object at whose path alpm-dkms has placed `top`.
    fn beside_listed(&self, object: &BuiltObject, top: &Placed) -> Choice {
        let BuiltModule { machine, id, kernel, .. } = *self.new;
        let dir = self.inventory.dir();
        let is_forced = machine.options.force_install;
        // A transaction may install an older version, since pacman can downgrade packages.
        let is_named = machine.options.module.as_ref() == Some(id);
        // An installed module whose source has been removed is waiting to be replaced.
        let is_wanted = || machine.trees.source.join(top.module.source_dir()).exists();
        if is_named && top.module != *id && !self.ignores_version && is_wanted() {
            let file = dir.join(&top.path);
            if let Some(why) =
                self.refusal(&file, object, Some(&top.module)).filter(|_| file.exists())
            {
                return refuse(object, Some(top.path.clone()), why, true);
            }
        }
        if top.module.name != id.name {
            let is_below = self.inventory.of_module_at(&id.name, &object.path()).is_some();
            return if is_below && !is_named && !is_forced { Choice::Below } else { Choice::Place };
        }
        let mut top = top.clone();
        top.examine(machine, kernel, dir);
        let file = dir.join(&top.path);
        if top.condition.is_changed()
            && let Some(package) = owner_of(&machine.trees, &file)
        {
            return leave_to_package(object, &file, &package);
        }
        match top.condition {
            Condition::Resigned | Condition::Other if is_forced => Choice::Place,
            Condition::Resigned | Condition::Other if self.is_same(object, &file) => Choice::Keep,
            Condition::Other => {
                Choice::Leave(format!("{} has been changed since its installation", file.display()))
            }
            _ => Choice::Place,
        }
    }

    /// Returns the choice for an object at whose path alpm-dkms has placed nothing.
    fn beside_unlisted(&self, object: &BuiltObject) -> Choice {
        let BuiltModule { machine, .. } = *self.new;
        let file = self.inventory.dir().join(object.path());
        if file.symlink_metadata().is_err() {
            return Choice::Place;
        }
        if let Some(package) = owner_of(&machine.trees, &file) {
            return leave_to_package(object, &file, &package);
        }
        let is_forced = machine.options.force_install;
        if !is_forced && self.is_same(object, &file) { Choice::Keep } else { Choice::Place }
    }

    /// Returns true if `file` is `object`, apart from its signature.
    fn is_same(&self, object: &BuiltObject, file: &Path) -> bool {
        let BuiltModule { machine, .. } = *self.new;
        if file.is_symlink() {
            return false;
        }
        if Digest::of_file(file).is_ok_and(|digest| digest == object.digest) {
            return true;
        }
        let read = |file: &Path| Payload::read(&machine.tools, &machine.env, file);
        read(file).is_some_and(|there| {
            let stored = self.new.dir().join(&object.name);
            read(&stored).is_some_and(|stored| stored.digest == there.digest)
        })
    }

    /// Returns the reason why the existing file `there` prevents the installation of `object`, or
    /// `None` if the file does not prevent it. `owner` is the installed module to which the file
    /// belongs, or `None` if the file belongs to the kernel.
    fn refusal(
        &self,
        there: &Path,
        object: &BuiltObject,
        owner: Option<&ModuleId>,
    ) -> Option<String> {
        let BuiltModule { machine, .. } = *self.new;
        let (old, old_source) = versions(machine, there);
        let (new, new_source) = versions(machine, &self.new.dir().join(&object.name));
        let file = there.display();
        if version::compare(&old, &new) == Ordering::Greater {
            let new = if new.is_empty() { "none" } else { &new };
            return Some(format!("{file} is newer (version {old}, this one has {new})"));
        }
        let unknown = [&old, &old_source, &new, &new_source].iter().all(|text| text.is_empty());
        let same = if unknown {
            Digest::of_file(there).is_ok_and(|other| other == object.digest)
        } else {
            (old, old_source) == (new, new_source)
        };
        same.then(|| match owner {
            Some(owner) => format!("{owner} has installed an identical object: {file}"),
            None => format!("the kernel already has an identical module: {file}"),
        })
    }
}

/// Returns the `version` and the `srcversion` of an object. Each is empty if the object does not
/// state it.
fn versions(machine: &Machine, object: &Path) -> (String, String) {
    let info = read_stored_modinfo(&machine.tools, &machine.env, object).unwrap_or_default();
    let word = |text: Option<String>| {
        text.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
    };
    (word(info.version), word(info.srcversion))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("6.11.9", false)]
    #[case("6.12", true)]
    #[case("6.12.1-arch1-1", true)]
    fn modules_are_obsolete_from_the_limit_on(#[case] kernel: &str, #[case] want: bool) {
        assert_eq!(is_obsolete(&kernel.parse().unwrap(), "6.12"), want);
    }
}
