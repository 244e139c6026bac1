//! Modules that come from elsewhere, and archives of modules that go elsewhere.

use dkms_engine::archive::{self, Packing, Unpacked};
use dkms_engine::failure::Failure;
use dkms_engine::import::Import;
use dkms_engine::links;
use dkms_engine::names::{Arch, KernelRelease, ModuleId};
use dkms_engine::site::Site;
use dkms_engine::state::{Added, State};
use dkms_engine::version;

use crate::args::refusal::refuse;
use crate::args::subject::{KernelChoice, Subject, Wrapping};

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
    /// [`Failure`], where there is no module that could be added.
    pub fn read(path: &Subject, site: &Site, kernels: &KernelChoice) -> Result<Self, Failure> {
        let KernelChoice::These(targets) = kernels else {
            return refuse(5, "--all cannot be used with a path");
        };
        let Some(kernel) = targets.first().map(|target| target.kernel.clone()) else {
            return refuse(4, "there is no kernel to ask its dkms.conf about");
        };
        let (import, room) = match path {
            Subject::Module(id) => return refuse(9, format!("{id} is no path")),
            Subject::Directory(dir) => (Import::from_directory(site, dir, &kernel)?, None),
            Subject::Archive(file) => {
                let room = archive::unpack(site, file)?;
                let import = Import::from_unpacked(site, room.path(), &kernel);
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

/// `dkms mktarball`: returns what goes into the archive of a module.
///
/// # Errors
/// [`Failure`], as dkms gives it: 4 broken, 3 not added, 8 a dkms.conf that is none, 6 not built
/// for one of the kernels.
pub fn pack(
    site: &Site,
    id: &ModuleId,
    kernels: &KernelChoice,
    wrapping: &Wrapping,
) -> Result<Packing, Failure> {
    let state = State::read(&site.trees);
    let added = state.modules.iter().find(|added| added.id == *id);
    let Some(added) = added.filter(|added| added.is_added() || added.is_broken()) else {
        return refuse(3, format!("{id} is not added: see dkms status"));
    };
    if added.is_broken() {
        return refuse(4, format!("{id} is broken: its source is missing"));
    }
    let builds = builds(added, kernels);
    check_conf(site, id, builds.first().map(|(kernel, _)| kernel))?;
    if !wrapping.no_builds {
        let missing = builds
            .iter()
            .find(|(kernel, arch)| !site.trees.built(id, kernel, arch).join("module").is_dir());
        if let Some((kernel, arch)) = missing {
            return refuse(6, format!("{id} is not built for {kernel} ({arch}): build it first"));
        }
    }
    Ok(Packing {
        id: id.clone(),
        builds: (!wrapping.no_builds).then_some(builds),
        source: !wrapping.no_source,
        archive: wrapping.archive.clone(),
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

/// dkms packs nothing whose conf it does not understand.
fn check_conf(site: &Site, id: &ModuleId, kernel: Option<&KernelRelease>) -> Result<(), Failure> {
    let Some(kernel) = kernel else { return Ok(()) };
    let link = site.trees.source_link(id);
    let source = links::resolve(&site.trees.root, &link).unwrap_or(link);
    match Import::from_directory(site, &source, kernel) {
        Ok(_) => Ok(()),
        Err(why) if why.code == 9 => refuse(4, why.message),
        Err(why) => Err(why),
    }
}
