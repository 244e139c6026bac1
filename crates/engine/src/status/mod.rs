//! The lines of `dkms status`: one for each module version, or for each kernel it is built for.

mod filter;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use filter::{Filter, KernelFilter, Pattern};

use crate::dkms_tree::{Added, BuiltFor, Record, TreeState};
use crate::machine::Placement;
use crate::machine::Trees;
use crate::names::{Arch, KernelRelease, ModuleId, ModuleName, ModuleVersion};
use crate::objects::ObjectName;
use crate::os::digest::Digest;
use crate::os::parallel::on_all_cores;
use crate::os::symlinks;

/// One line. Its text is dkms's own, which other programs read (dkms-behaviour 8.1).
///
/// As JSON it is an object that keeps its shape: always `state` (`"added"`, `"broken"`, `"built"`
/// or `"installed"`), `module` and `version`; in the last two states also `kernel`, `arch` and
/// `remarks`, a list that may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Line {
    /// Registered, and built for none of the selected kernels.
    Added(Version),
    /// Its source is gone.
    Broken(Version),
    /// Kept in the dkms tree for this kernel.
    Built(ForKernel),
    /// Placed in this kernel's directory.
    Installed(ForKernel),
}

/// A module version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// The module.
    pub(crate) module: ModuleName,
    /// Its version.
    pub(crate) version: ModuleVersion,
}

/// A module version, built for a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForKernel {
    /// The module.
    pub(crate) module: ModuleName,
    /// Its version.
    pub(crate) version: ModuleVersion,
    /// The kernel.
    pub(crate) kernel: KernelRelease,
    /// Its architecture.
    pub(crate) arch: Arch,
    /// What is not as usual.
    pub(crate) remarks: Vec<Remark>,
}

/// Something about a built module that a person should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Remark {
    /// dkms moved an object of the kernel's own away for it.
    OriginalModulesExist,
    /// An object is not in the dkms tree any more.
    BuiltModulesMissing,
    /// What stands in the kernel's directory is not what was built, or is not there.
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
    /// What to do about a broken module, for the error stream; dkms says something there too.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let Self::Broken(Version { module, version }) = self else { return None };
        Some(format!(
            "{module}/{version}: its source is missing, or the link that leads to it\n  \
             try: reinstall the package of {module}, or remove {module}/{version} from the dkms tree by hand"
        ))
    }
}

/// Returns the lines that `filter` selects, in the order of dkms in the C locale.
/// Reads no dkms.conf and takes no lock: status bars call this every minute.
#[must_use]
pub fn lines(
    trees: &Trees,
    state: &TreeState,
    placement: &Placement,
    filter: &Filter,
) -> Vec<Line> {
    let once = [KernelFilter::default()];
    let rounds = if filter.kernels.is_empty() { &once[..] } else { &filter.kernels };
    let view = View { trees, placement };
    let selected = state.modules.iter().filter(|added| {
        filter::fits(filter.module.as_ref(), added.id.name.as_str())
            && filter::fits(filter.version.as_ref(), added.id.version.as_str())
    });
    let selected: Vec<&Added> = selected.collect();
    let of_round =
        |round| on_all_cores(&selected, |added| view.of_module(added, round)).into_iter();
    rounds.iter().flat_map(of_round).flatten().collect()
}

/// What is needed to look at built and placed objects.
struct View<'a> {
    trees: &'a Trees,
    placement: &'a Placement,
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
        // Hardly any module has originals: one look is enough for all kernels.
        let has_originals = self.trees.all_originals(name).is_dir();
        let line = |built| self.of_built(&added.id, built, has_originals);
        let lines: Vec<Line> = listed.map(line).collect();
        // Also where the filter hides what is built: dkms says so, and scripts know it.
        if lines.is_empty() { vec![Line::Added(itself())] } else { lines }
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
            // Only a conf without a single object would make this right; there hardly is one.
            remarks.push(Remark::BuiltModulesMissing);
        }
        // The first object with something to say ends the search, as with dkms.
        for object in objects {
            let stored = dir.join(&object.name);
            if !stored.exists() {
                remarks.push(Remark::BuiltModulesMissing);
                break;
            }
            if built.installed && !self.is_in_place(&stored, kernel, &object) {
                remarks.push(Remark::Differences);
                break;
            }
        }
        remarks
    }

    /// The objects that should be there: those of our record, or (dkms built it) those that are.
    fn objects(&self, id: &ModuleId, built: &BuiltFor, dir: &Path) -> Vec<Expected> {
        let record = Record::path(self.trees, id, &built.kernel, &built.arch);
        if let Some(record) = Record::read(&record) {
            let expected = |object: crate::dkms_tree::BuiltObject| Expected {
                place: Place::Only(object.location.into()),
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
        names.into_iter().map(|name| Expected { name, place: place.clone() }).collect()
    }

    /// Returns true if the object stands in the kernel's directory as it is stored.
    fn is_in_place(&self, stored: &Path, kernel: &KernelRelease, object: &Expected) -> bool {
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

    /// Returns true if two files have the same content. `placed` may be a link (`symlink_modules`).
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

/// An object that should be there.
struct Expected {
    /// Its file name.
    name: String,
    /// Where it should have been placed.
    place: Place,
}

/// A place below `L/K`.
#[derive(Clone)]
enum Place {
    /// We noted it.
    Only(PathBuf),
    /// dkms placed it: here, unless it is where its conf says.
    Usually(PathBuf),
    /// dkms placed it, and only its conf says where.
    Anywhere,
}
