//! Gives each build its own directories for temporary files, so that two builds can both use
//! `/tmp/x`.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::machine::{Kernel, Machine};
use crate::names::ModuleId;
use crate::os::durable::{self, FileError};
use crate::os::process::{OwnTemporary, paths_below};
use crate::os::symlinks;

/// The machine's directories for temporary files (hier(7)).
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// Returns a build's own directories for temporary files, which are below `dir`. The build's
/// programs see these directories instead of the machine's directories.
///
/// Some paths in the machine's directories stay visible, because the build needs them: the headers,
/// and the paths that options, settings and the source link name. Paths named in the environment
/// are added when a program starts.
pub(super) fn of_build(
    machine: &Machine,
    id: &ModuleId,
    kernel: &Kernel,
    dir: &Path,
) -> Vec<OwnTemporary> {
    let needed = needed(machine, id, kernel);
    let places: BTreeSet<PathBuf> = TEMPORARY
        .iter()
        .filter_map(|place| fs::canonicalize(place).ok())
        .filter(|it| it.is_dir())
        .collect();
    // If one of the trees is `/tmp` itself, for example, hiding `/tmp` would hide the tree.
    let places = places.into_iter().filter(|place| !needed.contains(place));
    let own = |at: PathBuf| {
        let name = at.to_string_lossy().trim_start_matches('/').replace('/', "-");
        let mut visible: BTreeSet<PathBuf> =
            needed.iter().filter(|path| path.starts_with(&at)).cloned().collect();
        let texts = machine.options.directives.iter().map(|(_, text)| text);
        visible.extend(texts.flat_map(|text| paths_below(text.as_ref(), &at)));
        OwnTemporary { real: dir.join(name), at, visible }
    };
    places.map(own).collect()
}

/// Creates the directories `own` of a build in `dir`. As in the machine's directories, every user
/// can create files in them. From outside the build, only root can enter `dir`.
pub(super) fn create(dir: &Path, own: &[OwnTemporary]) -> Result<(), FileError> {
    for temporary in own {
        durable::create_dirs(&temporary.real)?;
        set_mode(&temporary.real, 0o1777)?;
    }
    if own.is_empty() { Ok(()) } else { set_mode(dir, 0o700) }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    let set = fs::set_permissions(path, Permissions::from_mode(mode));
    set.map_err(FileError::when("set the mode of", path))
}

/// Returns the existing paths outside the build directory that a build may need. Each path is
/// included both unchanged and with its links resolved.
fn needed(machine: &Machine, id: &ModuleId, kernel: &Kernel) -> BTreeSet<PathBuf> {
    let trees = &machine.trees;
    let options = &machine.options;
    let source = symlinks::resolve(&trees.root, &trees.source_link(id)).ok();
    let build_environment = machine.settings.build_environment();
    let launcher = machine.settings.launcher().first().map(PathBuf::from);
    let paths = [&trees.root, &trees.source, &trees.dkms, &trees.install, &trees.etc, &kernel.dir]
        .into_iter()
        .cloned()
        .chain(kernel.headers.iter().flat_map(|dir| [dir.clone(), dir.join("source")]))
        .chain([source, options.conf.clone(), options.kernel_config.clone()].into_iter().flatten())
        .chain(options.kernel_source.clone())
        .chain(build_environment.map(|file| trees.inside(&file)))
        .chain(launcher.filter(|program| program.is_absolute()));
    let paths = paths.filter(|path| path.exists() && path != Path::new("/"));
    paths.flat_map(|path| fs::canonicalize(&path).into_iter().chain([path])).collect()
}
