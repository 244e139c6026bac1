//! Reads the module that an unpacked archive or a directory brings.

use std::fs;
use std::path::{Path, PathBuf};

use crate::conf::{ConfRequest, Confs, is_source};
use crate::facts::{Import, ImportedBuild};
use crate::failure::Failure;
use crate::machine::{Kernel, Machine};
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::symlinks;

/// In an archive of dkms: the source.
pub(crate) const SOURCE: &str = "dkms_source_tree";
/// In an archive of dkms without a source: what is known of the module.
pub(crate) const NO_SOURCE: &str = "dkms_binaries_only";
/// In an archive of dkms: what was built, `K/A` below it.
pub(crate) const BUILDS: &str = "dkms_main_tree";

/// Returns the module in a directory, as its dkms.conf describes it for `kernel`.
///
/// # Errors
/// [`Failure`]: 9 without a dkms.conf, 4 and 8 for one that cannot be read or names no module.
pub fn from_directory(
    machine: &Machine,
    dir: &Path,
    kernel: &KernelRelease,
) -> Result<Import, Failure> {
    let real = dir.canonicalize().ok().filter(|real| is_source(real));
    let Some(real) = real else {
        return Err(Failure::new(9, format!("{} has no dkms.conf", dir.display())));
    };
    let id = named(machine, &real, kernel)?;
    let trees = &machine.trees;
    let link = symlinks::resolve(&trees.root, &trees.source_link(&id));
    let own = [Ok(trees.source.join(id.source_dir())), link, Ok(trees.build(&id))];
    let at_home = own.iter().flatten().any(|own| own.canonicalize().is_ok_and(|own| own == real));
    let source = (!at_home).then_some(real);
    Ok(Import { id, source, builds: Vec::new(), packed: false })
}

/// The module in an archive that was unpacked to `dir`.
///
/// # Errors
/// [`Failure`]: 1 if it has no source and there is none on this machine, 3 without a
/// dkms.conf, 7 if dkms did not write it so, and otherwise as [`from_directory`].
pub fn from_unpacked(
    machine: &Machine,
    dir: &Path,
    kernel: &KernelRelease,
) -> Result<Import, Failure> {
    if !dir.join(BUILDS).is_dir() {
        let Some(source) = first_conf(dir) else {
            return Err(Failure::new(3, "there is no dkms.conf in the archive"));
        };
        return from_directory(machine, &source, kernel);
    }
    let Some(conf) =
        [SOURCE, NO_SOURCE].map(|name| dir.join(name)).into_iter().find(|dir| is_source(dir))
    else {
        let message =
            format!("this is no archive of dkms: there is no dkms.conf in {SOURCE} or {NO_SOURCE}");
        return Err(Failure::new(7, message));
    };
    let with_source = conf.ends_with(SOURCE);
    let id = named(machine, &conf, kernel)?;
    let home = machine.trees.source.join(id.source_dir());
    if !with_source && !home.is_dir() {
        let message = format!(
            "the archive has no source of {id}, and {} is not there: bring the source first",
            home.display()
        );
        return Err(Failure::new(1, message));
    }
    let source = with_source.then_some(conf);
    Ok(Import { builds: builds(&dir.join(BUILDS))?, id, source, packed: true })
}

/// The module that the dkms.conf in `dir` is about.
fn named(machine: &Machine, dir: &Path, kernel: &KernelRelease) -> Result<ModuleId, Failure> {
    let conf = dir.join("dkms.conf");
    let bad = |why: String| Failure::new(8, format!("{}: {why}", conf.display()));
    // The conf itself names the module.
    let unnamed: ModuleId = "unnamed/0".parse().map_err(|why| bad(format!("{why}")))?;
    let mut kernel = Kernel::of_release(&machine.trees, kernel.clone());
    machine.options.equip(&mut kernel);
    let request = ConfRequest { id: unnamed, kernel: &kernel, source: dir.to_owned() };
    let values = Confs::new(machine).evaluate_at(&request)?.values;
    let text = |name: &str| values.text(name, 0).ok_or_else(|| bad(format!("{name} is missing")));
    let (name, version) = (text("PACKAGE_NAME")?, text("PACKAGE_VERSION")?);
    let name = name.parse().map_err(|why| bad(format!("PACKAGE_NAME: {why}")))?;
    let version = version.parse().map_err(|why| bad(format!("PACKAGE_VERSION: {why}")))?;
    Ok(ModuleId { name, version })
}

/// Every `K/A` below `dir`.
fn builds(dir: &Path) -> Result<Vec<ImportedBuild>, Failure> {
    let mut builds = Vec::new();
    for kernel in directories(dir) {
        for arch in directories(&kernel) {
            let bad = |why| Failure::new(7, format!("this is no archive of dkms: {why}"));
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

/// The directory of the dkms.conf that lies least deep.
fn first_conf(dir: &Path) -> Option<PathBuf> {
    let files = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().filter_map(Result::ok);
    let confs = files.filter(|file| file.file_name() == "dkms.conf" && file.file_type().is_file());
    confs.min_by_key(walkdir::DirEntry::depth)?.path().parent().map(Path::to_owned)
}
