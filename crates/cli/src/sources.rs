//! Modules that come from elsewhere, and archives of modules that go elsewhere.

use std::path::PathBuf;

use dkms_engine::archive::{self, Packing, Unpacked};
use dkms_engine::dkms_tree::{Added, TreeState};
use dkms_engine::facts::Import;
use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::names::{Arch, KernelRelease, ModuleId};
use dkms_engine::os::symlinks;
use dkms_engine::version;

use crate::wanted::{Kernels, Refusal, Subject, refuse};

/// A module from elsewhere, with the room it was unpacked in until it has been copied.
pub struct Arrival {
    /// The module.
    pub import: Import,
    /// The kernel that its dkms.conf is asked about.
    pub kernel: KernelRelease,
    _room: Option<Unpacked>,
}

impl Arrival {
    /// Reads the module at a path.
    ///
    /// # Errors
    /// [`Refusal`], where there is no module that could be added.
    pub fn read(path: &Subject, machine: &Machine, kernels: &Kernels) -> Result<Self, Refusal> {
        let Kernels::These(targets) = kernels else {
            return refuse(5, "--all cannot be used with a path");
        };
        let Some(kernel) = targets.first().map(|target| target.kernel.clone()) else {
            return refuse(4, "there is no kernel to ask its dkms.conf about");
        };
        let (import, room) = match path {
            Subject::Module(id) => return refuse(9, format!("{id} is no path")),
            Subject::Directory(dir) => (archive::from_directory(machine, dir, &kernel)?, None),
            Subject::Archive(file) => {
                let room = archive::unpack(machine, file)?;
                let import = archive::from_unpacked(machine, room.path(), &kernel);
                let import = import.map_err(|why| Failure {
                    message: format!("{}: {}", file.display(), why.message),
                    ..why
                })?;
                (import, Some(room))
            }
        };
        Ok(Self { import, kernel, _room: room })
    }
}

/// What `dkms mktarball` leaves out and where it writes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wrapping {
    /// `--binaries-only`
    pub no_source: bool,
    /// `--source-only`
    pub no_builds: bool,
    /// `--archive`
    pub archive: Option<PathBuf>,
}

/// Writes the archive of a module and gives its path.
///
/// # Errors
/// [`Refusal`], as dkms gives it: 4 broken, 3 not added, 8 a dkms.conf that is none, 6 not built
/// for one of the kernels, 9 a place that cannot be written to.
pub fn pack(
    machine: &Machine,
    id: &ModuleId,
    kernels: &Kernels,
    wrapping: &Wrapping,
) -> Result<PathBuf, Refusal> {
    let state = TreeState::read(&machine.trees);
    let added = state.modules.iter().find(|added| added.id == *id);
    let Some(added) = added.filter(|added| added.is_added() || added.is_broken()) else {
        return refuse(3, format!("{id} is not added: see dkms status"));
    };
    if added.is_broken() {
        return refuse(4, format!("{id} is broken: its source is missing"));
    }
    let builds = builds(added, kernels);
    check_conf(machine, id, builds.first().map(|(kernel, _)| kernel))?;
    if !wrapping.no_builds {
        let missing = builds
            .iter()
            .find(|(kernel, arch)| !machine.trees.built(id, kernel, arch).join("module").is_dir());
        if let Some((kernel, arch)) = missing {
            return refuse(6, format!("{id} is not built for {kernel} ({arch}): build it first"));
        }
    }
    let packing = Packing {
        id: id.clone(),
        builds: (!wrapping.no_builds).then_some(builds),
        source: !wrapping.no_source,
        archive: wrapping.archive.clone(),
    };
    Ok(packing.write(machine)?)
}

fn builds(added: &Added, kernels: &Kernels) -> Vec<(KernelRelease, Arch)> {
    match kernels {
        Kernels::These(targets) => {
            targets.iter().map(|it| (it.kernel.clone(), it.arch.clone())).collect()
        }
        Kernels::All => {
            let built = added.kernels.iter().filter(|built| built.has_module_dir);
            let mut all: Vec<_> =
                built.map(|built| (built.kernel.clone(), built.arch.clone())).collect();
            all.sort_by(|a, b| version::compare(a.0.as_str(), b.0.as_str()));
            all
        }
    }
}

/// dkms packs nothing whose conf it does not understand.
fn check_conf(
    machine: &Machine,
    id: &ModuleId,
    kernel: Option<&KernelRelease>,
) -> Result<(), Refusal> {
    let Some(kernel) = kernel else { return Ok(()) };
    let link = machine.trees.source_link(id);
    let source = symlinks::resolve(&machine.trees.root, &link).unwrap_or(link);
    match archive::from_directory(machine, &source, kernel) {
        Ok(_) => Ok(()),
        Err(why) if why.code == 9 => refuse(4, why.message),
        Err(why) => Err(why.into()),
    }
}

impl From<Failure> for Refusal {
    fn from(problem: Failure) -> Self {
        Self { code: problem.code, message: problem.to_string() }
    }
}
