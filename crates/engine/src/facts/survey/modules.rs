//! Finds the modules in the dkms tree and the source tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::Survey;
use crate::conf::is_source;
use crate::dkms_tree::{Added, BuiltFor, SourceState, TreeState};
use crate::facts::source_names::modules_with;
use crate::facts::{Built, Lack, ModuleFacts, Pair, SourceLink, SourcePlace};
use crate::machine::Trees;
use crate::names::{BadName, ModuleId};
use crate::os::durable::{FileError, UNFINISHED};
use crate::os::symlinks;

impl Survey<'_> {
    /// Returns the modules in the dkms tree and the source tree.
    pub(super) fn modules(&mut self) -> BTreeMap<ModuleId, ModuleFacts> {
        let state = TreeState::read(&self.machine.trees);
        self.problems.extend(state.problems.iter().cloned());
        let mut modules = BTreeMap::new();
        let mut by_source = BTreeMap::new();
        for added in &state.modules {
            let mut source_name = None;
            if let SourceState::Link { target, dir } = &added.source {
                source_name = source_dir(&self.machine.trees, target);
                self.linked.extend(dir.clone().map(|dir| (added.id.clone(), dir)));
            }
            by_source.extend(source_name.clone().map(|name| (name, added.id.clone())));
            let mut module = self.added(added, source_name);
            module.source_is_absent = self.is_absent(&module.source_dir);
            modules.insert(added.id.clone(), module);
        }
        for id in self.scope.modules.iter().flatten() {
            self.lacking.extend(self.lack(id, &state).map(|lack| (id.clone(), lack)));
            // Unlike a directory name, the command line separates the name from the version.
            by_source.entry(id.source_dir()).or_insert_with(|| id.clone());
        }
        let (dirs, problems) = source_dirs(&self.machine.trees);
        self.problems.extend(problems);
        let mut named = self.named(dirs.iter().filter(|dir| !by_source.contains_key(*dir)));
        for dir in dirs {
            let id = match by_source.get(&dir) {
                Some(id) => Ok(id.clone()),
                None => named.remove(&dir).unwrap_or_else(|| ModuleId::from_source_dir(&dir)),
            };
            let id = match id {
                Ok(id) => id,
                Err(error) => {
                    self.problems.push(format!("/usr/src/{dir}: ignored: {error}"));
                    continue;
                }
            };
            let module = modules.entry(id).or_insert_with(|| ModuleFacts {
                source_dir: dir.clone(),
                source: SourcePlace::Present,
                source_is_absent: false,
                link: SourceLink::None,
                elsewhere: false,
                pairs: BTreeMap::new(),
            });
            module.source_dir = dir;
            module.source = SourcePlace::Present;
            module.source_is_absent = false;
        }
        modules
    }

    /// Returns true if it is certain that a directory of the source tree contains no dkms.conf.
    pub(super) fn is_absent(&mut self, dir: &str) -> bool {
        let conf = self.machine.trees.source.join(dir).join("dkms.conf");
        match fs::symlink_metadata(&conf) {
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => {
                self.problems.push(FileError::when("examine", &conf)(error).to_string());
                false
            }
        }
    }

    /// Returns the modules in `dirs`, the directories that belong to no added module and to no
    /// module on the command line. Returns an empty map if the scope excludes evaluating their
    /// confs.
    fn named<'d>(
        &self,
        dirs: impl Iterator<Item = &'d String>,
    ) -> BTreeMap<String, Result<ModuleId, BadName>> {
        if self.scope.shallow || self.scope.modules.is_some() {
            return BTreeMap::new();
        }
        modules_with(self.machine, &self.confs, &dirs.cloned().collect())
    }

    /// Returns true if the command line names a file that replaces the module's dkms.conf.
    fn conf_is_given(&self, id: &ModuleId) -> bool {
        let options = &self.machine.options;
        options.conf.is_some() && options.module.as_ref() == Some(id)
    }

    /// Returns the missing part of a module named on the command line, or `None` if no part is
    /// missing.
    fn lack(&self, id: &ModuleId, state: &TreeState) -> Option<Lack> {
        let added = state.modules.iter().find(|added| added.id == *id);
        if added.is_some_and(Added::is_unlinked) {
            return Some(Lack::Link);
        }
        let dir = self.machine.trees.source.join(id.source_dir());
        (dir.is_dir() && !is_source(&dir)).then_some(Lack::Conf)
    }

    /// Adds to `modules` the module that is to be imported. Its source counts as present, since it
    /// will be copied.
    pub(super) fn add_import(&self, modules: &mut BTreeMap<ModuleId, ModuleFacts>) {
        let Some(import) = &self.scope.import else { return };
        let module = modules.entry(import.id.clone()).or_insert_with(|| ModuleFacts {
            source_dir: import.id.source_dir(),
            source: SourcePlace::Missing,
            source_is_absent: false,
            link: SourceLink::None,
            elsewhere: false,
            pairs: BTreeMap::new(),
        });
        if import.source.is_some() && module.link != SourceLink::Source {
            module.source_dir = import.id.source_dir();
            module.source = SourcePlace::Present;
        }
    }

    /// Returns the facts about an added module. `source_name` is the name of the source directory
    /// to which the module's source link points.
    fn added(&self, added: &Added, source_name: Option<String>) -> ModuleFacts {
        let trees = &self.machine.trees;
        let id = &added.id;
        let kept = trees.kept(id);
        let (link, source) = match &added.source {
            SourceState::Link { dir: Some(dir), .. } if *dir == kept => {
                (SourceLink::Kept, SourcePlace::Kept)
            }
            // A directory without dkms.conf is left over from a package and is not a source.
            SourceState::Link { dir: Some(dir), .. }
                if self.conf_is_given(id) || is_source(dir) =>
            {
                (SourceLink::Source, SourcePlace::Present)
            }
            SourceState::Link { .. } if is_source(&kept) => {
                (SourceLink::Mendable, SourcePlace::Kept)
            }
            SourceState::Link { .. } => (SourceLink::Broken, SourcePlace::Missing),
            SourceState::BinariesOnly | SourceState::Missing => {
                (SourceLink::None, SourcePlace::Missing)
            }
        };
        let mut module = ModuleFacts {
            source_dir: source_name.unwrap_or_else(|| id.source_dir()),
            source,
            source_is_absent: false,
            link,
            elsewhere: added
                .kernels
                .iter()
                .any(|built| built.arch != self.machine.arch && built.has_module_dir),
            pairs: BTreeMap::new(),
        };
        let of_this_arch =
            |built: &&BuiltFor| built.arch == self.machine.arch && built.has_module_dir;
        for built in added.kernels.iter().filter(of_this_arch) {
            let pair = Pair {
                built: Some(Built { installed: built.installed, ..Built::default() }),
                ..Pair::default()
            };
            module.pairs.insert(built.kernel.clone(), pair);
        }
        module
    }
}

/// Returns the names of the directories in the source tree that contain a dkms.conf.
///
/// The second value contains a message for each of these directories whose name is not UTF-8.
#[must_use]
pub fn source_dirs(trees: &Trees) -> (BTreeSet<String>, Vec<String>) {
    let (mut dirs, mut problems) = (BTreeSet::new(), Vec::new());
    for entry in fs::read_dir(&trees.source).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let unfinished = name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
        if unfinished || !is_source(&entry.path()) {
            continue;
        }
        match name.into_string() {
            Ok(name) => drop(dirs.insert(name)),
            Err(name) => problems.push(format!(
                "/usr/src/{}: ignored: name is not valid UTF-8",
                name.to_string_lossy()
            )),
        }
    }
    (dirs, problems)
}

/// Returns the name of the directory in the source tree to which a source link with the text
/// `target` points. The directory need not exist. Returns `None` if the link points elsewhere.
fn source_dir(trees: &Trees, target: &Path) -> Option<String> {
    let tree = symlinks::text_for(&trees.root, &trees.source);
    let below = target.strip_prefix(&tree).or_else(|_| target.strip_prefix(&trees.source));
    let name = below.ok()?;
    (name.components().count() == 1).then(|| name.to_string_lossy().into_owned())
}
