//! Finds the module in an unpacked archive or in a directory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::conf::{ConfRequest, Confs, is_source};
use crate::facts::{Import, ImportedBuild};
use crate::failure::Failure;
use crate::machine::{Kernel, Machine};
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::symlinks;

/// In a dkms archive, the directory of the source.
pub(crate) const SOURCE: &str = "dkms_source_tree";
/// In a dkms archive without source, the directory of the files PACKAGE_NAME, PACKAGE_VERSION and
/// dkms.conf.
pub(crate) const NO_SOURCE: &str = "dkms_binaries_only";
/// In a dkms archive, the directory of the builds, each in a subdirectory `K/A`.
pub(crate) const BUILDS: &str = "dkms_main_tree";

/// The message for an archive without a dkms.conf.
const NO_CONF: &str = "no dkms.conf in the archive";

/// Returns the module in the directory `dir`. The dkms.conf is evaluated for `kernel`.
///
/// # Errors
/// [`Failure`] with exit code 9 if `dir` contains no dkms.conf, and 4 or 8 if the dkms.conf cannot
/// be read or does not name a module.
pub fn from_directory(
    machine: &Machine,
    dir: &Path,
    kernel: &KernelRelease,
) -> Result<Import, Failure> {
    let real = dir.canonicalize().ok().filter(|real| is_source(real));
    let Some(real) = real else {
        return Err(Failure::new(9, format!("no dkms.conf in {}", dir.display())));
    };
    let id = module_id(machine, &real, kernel)?;
    let trees = &machine.trees;
    let link = symlinks::resolve(&trees.root, &trees.source_link(&id));
    let own = [Ok(trees.source.join(id.source_dir())), link, Ok(trees.build(&id))];
    let at_home = own.iter().flatten().any(|own| own.canonicalize().is_ok_and(|own| own == real));
    let source = (!at_home).then_some(real);
    Ok(Import { id, source, builds: Vec::new(), packed: false })
}

/// Returns the module in the archive that was unpacked to `dir`, with its builds.
///
/// # Errors
/// [`Failure`] with exit code 1 if the source is neither in the archive nor on this machine, 3 if
/// the archive contains no dkms.conf, and 7 if it is not a valid dkms archive. Other failures are
/// those of [`from_directory`].
pub fn from_unpacked(
    machine: &Machine,
    dir: &Path,
    kernel: &KernelRelease,
) -> Result<Import, Failure> {
    if !dir.join(BUILDS).is_dir() {
        let Some(source) = first_conf(dir) else {
            return Err(Failure::new(3, NO_CONF));
        };
        return from_directory(machine, &source, kernel);
    }
    let Some(conf) =
        [SOURCE, NO_SOURCE].map(|name| dir.join(name)).into_iter().find(|dir| is_source(dir))
    else {
        let message = format!("not a dkms archive: no dkms.conf in {SOURCE} or {NO_SOURCE}");
        return Err(Failure::new(7, message));
    };
    let with_source = conf.ends_with(SOURCE);
    let id = module_id(machine, &conf, kernel)?;
    let home = machine.trees.source.join(id.source_dir());
    if !with_source && !home.is_dir() {
        let message = format!(
            "the archive does not contain the source of {id}, and {} does not exist; \
             install the source first",
            home.display()
        );
        return Err(Failure::new(1, message));
    }
    let source = with_source.then_some(conf);
    Ok(Import { builds: builds(&dir.join(BUILDS))?, id, source, packed: true })
}

/// Returns the source directory in the archive that was unpacked to `dir`.
///
/// # Errors
/// [`Failure`] with exit code 3 if the archive contains no dkms.conf, and 7 if it contains only
/// builds.
pub fn source_in(dir: &Path) -> Result<PathBuf, Failure> {
    if dir.join(BUILDS).is_dir() {
        let source = Some(dir.join(SOURCE)).filter(|source| is_source(source));
        return source.ok_or_else(|| Failure::new(7, "the archive does not contain the source"));
    }
    first_conf(dir).ok_or_else(|| Failure::new(3, NO_CONF))
}

/// Returns the module id that the dkms.conf in `dir` sets.
fn module_id(machine: &Machine, dir: &Path, kernel: &KernelRelease) -> Result<ModuleId, Failure> {
    let conf = dir.join("dkms.conf");
    let bad = |why: String| Failure::new(8, format!("{}: {why}", conf.display()));
    // A placeholder, since only the evaluated dkms.conf names the module.
    let unnamed: ModuleId = "unnamed/0".parse().map_err(|why| bad(format!("{why}")))?;
    let mut kernel = Kernel::of_release(&machine.trees, kernel.clone());
    machine.options.equip(&mut kernel);
    let request = ConfRequest { id: unnamed, kernel: &kernel, source: dir.to_owned() };
    let values = Confs::new(machine).evaluate_at(&request)?.values;
    let text = |name: &str| values.text(name, 0).ok_or_else(|| bad(format!("{name} is not set")));
    let (name, version) = (text("PACKAGE_NAME")?, text("PACKAGE_VERSION")?);
    let name = name.parse().map_err(|why| bad(format!("PACKAGE_NAME: {why}")))?;
    let version = version.parse().map_err(|why| bad(format!("PACKAGE_VERSION: {why}")))?;
    Ok(ModuleId { name, version })
}

/// Returns the builds in the `K/A` directories below `dir`.
fn builds(dir: &Path) -> Result<Vec<ImportedBuild>, Failure> {
    let mut builds = Vec::new();
    for kernel in directories(dir) {
        for arch in directories(&kernel) {
            let bad = |why| Failure::new(7, format!("not a dkms archive: {why}"));
            let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
            builds.push(ImportedBuild {
                kernel: KernelRelease::from_entry(&name(&kernel)).map_err(bad)?,
                arch: Arch::from_entry(&name(&arch)).map_err(bad)?,
                dir: arch,
            });
        }
    }
    Ok(builds)
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut dirs: Vec<PathBuf> = dirs.map(|entry| entry.path()).collect();
    dirs.sort();
    dirs
}

/// Returns the directory of the least deeply nested dkms.conf below `dir`, or `None` if there is no
/// dkms.conf.
fn first_conf(dir: &Path) -> Option<PathBuf> {
    let files = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().filter_map(Result::ok);
    let confs = files.filter(|file| file.file_name() == "dkms.conf" && file.file_type().is_file());
    confs.min_by_key(walkdir::DirEntry::depth)?.path().parent().map(Path::to_owned)
}
