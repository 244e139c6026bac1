//! The lines of `dkms status`: one for each build, and one for each module version without builds.

mod filter;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use filter::{Filter, KernelFilter, Pattern};

use crate::dkms_tree::{Added, BuiltFor, Inventory, Journal, Record, TreeState};
use crate::machine::Trees;
use crate::machine::{Kernels, Placement};
use crate::names::{Arch, KernelRelease, ModuleId, ModuleName, ModuleVersion};
use crate::objects::ObjectName;
use crate::os::digest::Digest;
use crate::os::parallel::on_all_cores;
use crate::os::symlinks;

/// A line of `dkms status`. Its text is the same as in dkms, since other programs parse it
/// (dkms-behaviour 8.1).
///
/// The JSON format is stable. A line is an object with the keys `state` (`"added"`, `"broken"`,
/// `"built"` or `"installed"`), `module` and `version`. If the state is `"built"` or `"installed"`,
/// it also has `kernel`, `arch` and `remarks`, which is a list of strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Line {
    /// The module version is added, but not built for any of the selected kernels.
    Added(Version),
    /// The module version is added, but its source or the link to the source is missing.
    Broken(Version),
    /// The module version is built for the kernel, but not installed.
    Built(ForKernel),
    /// The module version is installed for the kernel.
    Installed(ForKernel),
}

/// The module version in a line that names no kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    pub(crate) module: ModuleName,
    pub(crate) version: ModuleVersion,
}

/// The build that a line describes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForKernel {
    pub(crate) module: ModuleName,
    pub(crate) version: ModuleVersion,
    pub(crate) kernel: KernelRelease,
    pub(crate) arch: Arch,
    pub(crate) remarks: Vec<Remark>,
}

/// A remark in parentheses at the end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Remark {
    /// An original module of the kernel has been moved aside.
    OriginalModulesExist,
    /// An object of the build is missing from the dkms tree.
    BuiltModulesMissing,
    /// An object of the build is not installed, or the installed one differs from it.
    Differences,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OriginalModulesExist => "Original modules exist",
            Self::BuiltModulesMissing => "Built modules are missing in the kernel modules folder",
            Self::Differences => "Differences between built and installed modules",
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, state) = match self {
            Self::Added(of) => return write!(f, "{}/{}: added", of.module, of.version),
            Self::Broken(of) => return write!(f, "{}/{}: broken", of.module, of.version),
            Self::Built(line) => (line, "built"),
            Self::Installed(line) => (line, "installed"),
        };
        let ForKernel { module, version, kernel, arch, remarks } = line;
        write!(f, "{module}/{version}, {kernel}, {arch}: {state}")?;
        remarks.iter().try_for_each(|remark| write!(f, " ({remark})"))
    }
}

impl Line {
    /// Returns the module that the line describes.
    #[must_use]
    pub fn module(&self) -> ModuleId {
        let (name, version) = match self {
            Self::Added(of) | Self::Broken(of) => (&of.module, &of.version),
            Self::Built(line) | Self::Installed(line) => (&line.module, &line.version),
        };
        ModuleId { name: name.clone(), version: version.clone() }
    }

    /// Returns the kernel that the line describes; `None` if it describes none.
    #[must_use]
    pub fn kernel(&self) -> Option<&KernelRelease> {
        match self {
            Self::Added(_) | Self::Broken(_) => None,
            Self::Built(line) | Self::Installed(line) => Some(&line.kernel),
        }
    }

    /// Returns true if the line has remarks, such as that a built object is missing.
    #[must_use]
    pub fn has_remarks(&self) -> bool {
        matches!(self, Self::Built(line) | Self::Installed(line) if !line.remarks.is_empty())
    }

    /// Returns a warning for standard error if the module is broken, and otherwise `None`.
    #[must_use]
    pub fn advice(&self, trees: &Trees) -> Option<String> {
        let Self::Broken(_) = self else { return None };
        let id = self.module();
        let conf = format!("usr/src/{}/dkms.conf", id.source_dir());
        if Journal::read_all(trees).iter().any(|journal| journal.departing.contains_key(&conf)) {
            return Some(format!(
                "{id}: broken: source missing, since pacman has not finished replacing or removing \
                 it\n  run: dkms verify"
            ));
        }
        Some(advice_for_broken(trees, &id))
    }
}

/// Returns the message for a module whose source, or the link to it, is missing.
pub(crate) fn advice_for_broken(trees: &Trees, id: &ModuleId) -> String {
    let ModuleId { name: module, version } = id;
    if !trees.source_link(id).is_symlink() {
        return format!("{id}: broken: source link missing\n  run: dkms add {id}");
    }
    if trees.kept(id).join("dkms.conf").is_file() {
        return format!(
            "{id}: broken: source missing\n  restore /usr/src/{module}-{version}, or run: dkms \
             remove {id} --all"
        );
    }
    format!(
        "{id}: broken: source missing\n  restore /usr/src/{module}-{version}, or run: rm -r \
         /var/lib/dkms/{module}/{version}"
    )
}

/// Returns the lines that `filter` selects, in the order in which dkms prints them in the C locale.
///
/// Evaluates no confs and takes no lock, since status bars run `dkms status` every minute.
#[must_use]
pub fn lines(
    trees: &Trees,
    state: &TreeState,
    placement: &Placement,
    filter: &Filter,
) -> Vec<Line> {
    let once = [KernelFilter::default()];
    let rounds = if filter.kernels.is_empty() { &once[..] } else { &filter.kernels };
    let view = View { trees, placement, inventories: inventories(trees) };
    let selected = state.modules.iter().filter(|added| {
        filter::fits(filter.module.as_ref(), added.id.name.as_str())
            && filter::fits(filter.version.as_ref(), added.id.version.as_str())
    });
    let selected: Vec<&Added> = selected.collect();
    let of_round = |round: &KernelFilter| {
        let mut lines = on_all_cores(&selected, |added| view.of_module(added, round));
        lines.push(view.unknown_modules(state, filter, round));
        lines.into_iter()
    };
    rounds.iter().flat_map(of_round).flatten().collect()
}

/// Returns the inventory of each kernel that has one.
fn inventories(trees: &Trees) -> BTreeMap<KernelRelease, Inventory> {
    let kernels = Kernels::read(trees).unwrap_or_default().all.into_iter();
    kernels
        .map(|kernel| (kernel.release.clone(), Inventory::read(trees, &kernel.release)))
        .filter(|(_, inventory)| inventory.objects().next().is_some())
        .collect()
}

/// The paths needed for checking built and installed objects.
struct View<'a> {
    trees: &'a Trees,
    placement: &'a Placement,
    inventories: BTreeMap<KernelRelease, Inventory>,
}

impl View<'_> {
    fn of_module(&self, added: &Added, round: &KernelFilter) -> Vec<Line> {
        let ModuleId { name, version } = &added.id;
        let itself = || Version { module: name.clone(), version: version.clone() };
        if added.is_broken() {
            return vec![Line::Broken(itself())];
        }
        if !added.is_added() {
            return Vec::new();
        }
        let listed = added.kernels.iter().filter(|built| {
            built.has_module_dir && round.matches(built.kernel.as_str(), built.arch.as_str())
        });
        // Few modules have displaced original modules, so check this once for all kernels.
        let has_originals = self.trees.all_originals(name).is_dir();
        let line = |built| self.of_built(&added.id, built, has_originals);
        let mut lines: Vec<Line> = listed.map(line).collect();
        let is_built = |kernel: &KernelRelease, arch: &Arch| {
            added
                .kernels
                .iter()
                .any(|built| built.has_module_dir && built.kernel == *kernel && built.arch == *arch)
        };
        lines.extend(self.lost(&added.id, round, is_built));
        // dkms prints this line even if the filter hides existing builds, and scripts rely on it.
        if lines.is_empty() { vec![Line::Added(itself())] } else { lines }
    }

    /// Returns the lines of modules that have objects in kernel directories but are not in the dkms
    /// tree.
    fn unknown_modules(
        &self,
        state: &TreeState,
        filter: &Filter,
        round: &KernelFilter,
    ) -> Vec<Line> {
        let mut unknown: BTreeSet<&ModuleId> =
            self.inventories.values().flat_map(Inventory::modules).collect();
        unknown.retain(|id| {
            let added = state.modules.iter().find(|added| added.id == **id);
            added.is_none_or(|added| !added.is_added() && !added.is_broken())
                && filter::fits(filter.module.as_ref(), id.name.as_str())
                && filter::fits(filter.version.as_ref(), id.version.as_str())
        });
        unknown.into_iter().flat_map(|id| self.lost(id, round, |_, _| false)).collect()
    }

    /// Returns a line for each kernel whose directory contains objects of the module `id` although
    /// the module's build for that kernel is missing.
    fn lost(
        &self,
        id: &ModuleId,
        round: &KernelFilter,
        is_built: impl Fn(&KernelRelease, &Arch) -> bool,
    ) -> Vec<Line> {
        let listed = self.inventories.iter().filter_map(|(kernel, inventory)| {
            inventory.of(id).next().map(|object| (kernel, &object.arch))
        });
        let lost = listed.filter(|(kernel, arch)| {
            round.matches(kernel.as_str(), arch.as_str()) && !is_built(kernel, arch)
        });
        lost.map(|(kernel, arch)| {
            Line::Installed(ForKernel {
                module: id.name.clone(),
                version: id.version.clone(),
                kernel: kernel.clone(),
                arch: arch.clone(),
                remarks: vec![Remark::BuiltModulesMissing],
            })
        })
        .collect()
    }

    fn of_built(&self, id: &ModuleId, built: &BuiltFor, has_originals: bool) -> Line {
        let line = ForKernel {
            module: id.name.clone(),
            version: id.version.clone(),
            kernel: built.kernel.clone(),
            arch: built.arch.clone(),
            remarks: self.remarks(id, built, has_originals),
        };
        if built.installed { Line::Installed(line) } else { Line::Built(line) }
    }

    fn remarks(&self, id: &ModuleId, built: &BuiltFor, has_originals: bool) -> Vec<Remark> {
        let BuiltFor { kernel, arch, .. } = built;
        let mut remarks = Vec::new();
        if has_originals && self.trees.originals(&id.name, kernel, arch).is_dir() {
            remarks.push(Remark::OriginalModulesExist);
        }
        let dir = self.trees.built(id, kernel, arch).join("module");
        let objects = self.objects(id, built, &dir);
        let recorded = Record::path(self.trees, id, kernel, arch).exists();
        if objects.is_empty() && !recorded {
            // This is wrong if the conf lists no objects, which is rare.
            remarks.push(Remark::BuiltModulesMissing);
        }
        // As in dkms, only the first problem is reported.
        for object in objects {
            let stored = dir.join(&object.name);
            if !stored.exists() {
                remarks.push(Remark::BuiltModulesMissing);
                break;
            }
            if built.installed && !self.is_in_place(id, &stored, kernel, &object) {
                remarks.push(Remark::Differences);
                break;
            }
        }
        remarks
    }

    /// Returns the objects that should exist: the objects in the build's record. If dkms made the
    /// build, there is no record, and the objects in `dir` are returned.
    fn objects(&self, id: &ModuleId, built: &BuiltFor, dir: &Path) -> Vec<Expected> {
        let record = Record::path(self.trees, id, &built.kernel, &built.arch);
        if let Some(record) = Record::read(&record) {
            let expected = |object: crate::dkms_tree::BuiltObject| Expected {
                place: Place::Only(object.location.into()),
                digest: Some(object.digest),
                name: object.name,
            };
            return record.objects.into_iter().map(expected).collect();
        }
        let place = match self.placement {
            Placement::Fixed(place) => Place::Usually(place.clone()),
            Placement::FromConf => Place::Anywhere,
        };
        let mut names: Vec<_> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| ObjectName::parse(name).is_some())
            .collect();
        names.sort();
        names
            .into_iter()
            .map(|name| Expected { name, digest: None, place: place.clone() })
            .collect()
    }

    /// Returns true if `object` is installed in the kernel's directory with the content of
    /// `stored`.
    fn is_in_place(
        &self,
        id: &ModuleId,
        stored: &Path,
        kernel: &KernelRelease,
        object: &Expected,
    ) -> bool {
        if let Place::Only(place) = &object.place
            && let Some(digest) = &object.digest
            && let Some(inventory) = self.inventories.get(kernel)
            && inventory.has_intact(
                self.trees,
                id,
                &place.join(&object.name).to_string_lossy(),
                digest,
            )
        {
            return true;
        }
        let dir = self.trees.kernel(kernel);
        if let Place::Only(place) | Place::Usually(place) = &object.place
            && self.is_same(stored, &dir.join(place).join(&object.name))
        {
            return true;
        }
        if let Place::Only(_) = object.place {
            return false;
        }
        let not_headers = |entry: &walkdir::DirEntry| {
            entry.depth() != 1 || (entry.file_name() != "build" && entry.file_name() != "source")
        };
        walkdir::WalkDir::new(&dir)
            .into_iter()
            .filter_entry(not_headers)
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name() == object.name.as_str())
            .any(|entry| self.is_same(stored, entry.path()))
    }

    /// Returns true if `stored` and `placed` have the same content. `placed` can be a link
    /// (`symlink_modules`).
    fn is_same(&self, stored: &Path, placed: &Path) -> bool {
        let Ok(placed) = symlinks::resolve(&self.trees.root, placed) else { return false };
        let length = |path: &Path| fs::metadata(path).ok().map(|meta| meta.len());
        if length(stored).is_none() || length(stored) != length(&placed) {
            return false;
        }
        match (Digest::of_file(stored), Digest::of_file(&placed)) {
            (Ok(stored), Ok(placed)) => stored == placed,
            _ => false,
        }
    }
}

/// An object that should exist if its module is built or installed.
struct Expected {
    /// The file name, with all suffixes.
    name: String,
    /// The digest of the object, if the build has a record.
    digest: Option<Digest>,
    place: Place,
}

/// The directory, relative to the kernel's own, where an installed object should be.
#[derive(Clone)]
enum Place {
    /// The directory in the build's record. No other directory is accepted.
    Only(PathBuf),
    /// The distribution's directory, for an object that dkms installed. Any other directory is
    /// accepted too, since the conf may have named it.
    Usually(PathBuf),
    /// An unknown directory, which the conf named when dkms installed the object. Every directory
    /// is accepted.
    Anywhere,
}
