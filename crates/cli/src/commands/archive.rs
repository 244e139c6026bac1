//! Reads modules from directories and archives, and prepares the archive of `dkms mktarball`.

use dkms_engine::archive::{self, Packing, Unpacked};
use dkms_engine::dkms_tree::{Added, TreeState};
use dkms_engine::facts::Import;
use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::names::{Arch, KernelRelease, ModuleId};
use dkms_engine::os::symlinks;
use dkms_engine::version;

use crate::args::refusal::refuse;
use crate::args::subject::{ArchiveOptions, KernelChoice, Subject};

/// A module to add from a directory or an archive. The unpacked archive is deleted when the value
/// is dropped.
pub struct Arrival {
    /// The module and its source.
    pub import: Import,
    /// The kernel for which dkms.conf is evaluated.
    pub kernel: KernelRelease,
    _unpacked: Option<Unpacked>,
}

impl Arrival {
    /// Reads the module in the directory or archive `path`.
    ///
    /// # Errors
    /// [`Failure`] if `path` contains no module that can be added.
    pub fn read(
        path: &Subject,
        machine: &Machine,
        kernels: &KernelChoice,
    ) -> Result<Self, Failure> {
        let KernelChoice::These(targets) = kernels else {
            return refuse(5, "--all: cannot be used with a path (expected MODULE/VERSION)");
        };
        let Some(kernel) = targets.first().map(|target| target.kernel.clone()) else {
            return refuse(4, "no kernel given (expected -k RELEASE)");
        };
        let (import, unpacked) = match path {
            Subject::Module(id) => {
                return refuse(9, format!("{id}: not a path (expected a directory or an archive)"));
            }
            Subject::Directory(dir) => (archive::from_directory(machine, dir, &kernel)?, None),
            Subject::Archive(file) => {
                let unpacked = archive::unpack(machine, file)?;
                let import = archive::from_unpacked(machine, unpacked.path(), &kernel);
                let import = import.map_err(|why| Failure {
                    message: format!("{}: {}", file.display(), why.message),
                    ..why
                })?;
                (import, Some(unpacked))
            }
        };
        Ok(Self { import, kernel, _unpacked: unpacked })
    }
}

/// Checks that `dkms mktarball` can write an archive, and returns the archive's contents.
///
/// # Errors
/// [`Failure`] with exit code 3 if the module is not added, 4 if it is broken, 6 if it is
/// not built for one of the kernels, 8 if its dkms.conf is invalid.
pub fn pack(
    machine: &Machine,
    id: &ModuleId,
    kernels: &KernelChoice,
    options: &ArchiveOptions,
) -> Result<Packing, Failure> {
    let state = TreeState::read(&machine.trees);
    let added = state.modules.iter().find(|added| added.id == *id);
    let Some(added) = added.filter(|added| added.is_added() || added.is_broken()) else {
        return Err(Failure::new(3, format!("{id}: not added")).with_hint("see: dkms status"));
    };
    if added.is_broken() {
        return refuse(4, format!("{id}: broken: source missing"));
    }
    let builds = builds(added, kernels);
    check_conf(machine, id, builds.first().map(|(kernel, _)| kernel))?;
    if !options.no_builds {
        let missing = builds
            .iter()
            .find(|(kernel, arch)| !machine.trees.built(id, kernel, arch).join("module").is_dir());
        if let Some((kernel, arch)) = missing {
            return refuse(6, format!("{id}: not built for {kernel} ({arch})"));
        }
    }
    Ok(Packing {
        id: id.clone(),
        builds: (!options.no_builds).then_some(builds),
        source: !options.no_source,
        archive: options.archive.clone(),
    })
}

fn builds(added: &Added, kernels: &KernelChoice) -> Vec<(KernelRelease, Arch)> {
    match kernels {
        KernelChoice::These(targets) => {
            targets.iter().map(|it| (it.kernel.clone(), it.arch.clone())).collect()
        }
        KernelChoice::All => {
            let built = added.kernels.iter().filter(|built| built.has_module_dir);
            let mut all: Vec<_> =
                built.map(|built| (built.kernel.clone(), built.arch.clone())).collect();
            all.sort_by(|a, b| version::compare(a.0.as_str(), b.0.as_str()));
            all
        }
    }
}

/// Checks the dkms.conf of a module, because dkms does not archive a module whose dkms.conf is
/// invalid. Does nothing if `kernel` is `None`.
fn check_conf(
    machine: &Machine,
    id: &ModuleId,
    kernel: Option<&KernelRelease>,
) -> Result<(), Failure> {
    let Some(kernel) = kernel else { return Ok(()) };
    let link = machine.trees.source_link(id);
    let source = symlinks::resolve(&machine.trees.root, &link).unwrap_or(link);
    match archive::from_directory(machine, &source, kernel) {
        Ok(_) => Ok(()),
        Err(why) if why.code == 9 => refuse(4, why.message),
        Err(why) => Err(why),
    }
}
