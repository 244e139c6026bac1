//! The distribution of a machine and the place where it installs modules.

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::Trees;
use crate::os::process::Environment;
use crate::os::{paths, symlinks};

/// The place below a kernel's directory where modules are installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// The same directory for all modules, independent of their confs: `updates/dkms` on Arch.
    Fixed(PathBuf),
    /// The directory that the module's own conf names in `DEST_MODULE_LOCATION`.
    FromConf,
}

/// The error for a missing `os-release` file.
///
/// dkms fails as well, with exit code 4: on an unknown distribution, modules could be installed in
/// a directory that depmod does not search.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no os-release file below {root}: cannot determine the distribution's module directory")]
pub struct NoOsRelease {
    /// The root directory that has no `os-release` file.
    pub root: String,
}

/// The error for a `DEST_MODULE_LOCATION` outside the kernel's directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid DEST_MODULE_LOCATION: {0:?} (expected a directory below the kernel's directory)")]
pub struct BadPlace(pub String);

/// The properties of a distribution that determine where it installs modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// The name for lookups in dkms's tables: `ID` on Ubuntu, otherwise `ID_LIKE` or, if that is
    /// empty, `ID`.
    name: String,
    /// `ADDON_MODULES_DIR` from the settings of Red Hat's old module-init-tools, if set.
    addon_dir: Option<PathBuf>,
    /// Whether pacman installs the packages. Derivatives of Arch need not name Arch in os-release.
    has_pacman: bool,
}

/// A file that pacman creates together with its database of installed packages.
const PACMAN_DATABASE: &str = "var/lib/pacman/local/ALPM_DB_VERSION";

impl Distribution {
    /// Reads the distribution from os-release(5).
    ///
    /// # Errors
    /// [`NoOsRelease`] if the file is missing or unreadable, and the machine has no pacman.
    pub(crate) fn read(trees: &Trees) -> Result<Self, NoOsRelease> {
        let has_pacman = trees.root.join(PACMAN_DATABASE).is_file();
        let files = ["etc/os-release", "usr/lib/os-release"];
        let mut files = files
            .iter()
            .filter_map(|file| symlinks::resolve(&trees.root, &trees.root.join(file)).ok());
        let name = match files.find_map(|path| fs::read(path).ok()) {
            Some(text) => name(&String::from_utf8_lossy(&text)),
            None if has_pacman => "arch".to_owned(),
            None => return Err(NoOsRelease { root: trees.root.display().to_string() }),
        };
        Ok(Self { name, addon_dir: addon_modules_dir(trees), has_pacman })
    }

    /// Returns true if the distribution's name starts with one of `prefixes` (dkms-behaviour 5.1).
    #[must_use]
    pub(crate) fn is_any(&self, prefixes: &[&str]) -> bool {
        prefixes.iter().any(|prefix| self.name.starts_with(prefix))
    }

    /// Returns the place where the distribution installs modules (dkms-behaviour 5.1).
    ///
    /// ADDON_MODULES_DIR, in `env` or in the settings of module-init-tools, overrides dkms's table
    /// of distributions. If it is not set and the machine has pacman, the place is that of Arch,
    /// because an object in the directory that dkms.conf names would overwrite a file of the
    /// kernel's package.
    #[must_use]
    pub(crate) fn placement(&self, env: &Environment) -> Placement {
        let set = env.get("ADDON_MODULES_DIR").map(|dir| dir.to_string_lossy());
        let set = set.and_then(|dir| below(&dir));
        match set.or_else(|| self.addon_dir.clone()) {
            Some(dir) => Placement::Fixed(dir),
            None if self.has_pacman => Placement::of_distribution("arch"),
            None => Placement::of_distribution(&self.name),
        }
    }
}

impl Placement {
    fn of_distribution(id: &str) -> Self {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| id.starts_with(prefix));
        if starts(&["arch", "debian", "ubuntu"]) {
            Self::Fixed("updates/dkms".into())
        } else if starts(&["fedora", "centos", "rhel"]) {
            Self::Fixed("extra".into())
        } else if starts(&["sles", "suse", "opensuse"]) {
            Self::Fixed("updates".into())
        } else {
            Self::FromConf
        }
    }

    /// Returns the directory for a module whose `DEST_MODULE_LOCATION` is `wanted`. It is relative
    /// to the kernel's directory.
    ///
    /// # Errors
    /// [`BadPlace`] if `self` is [`Placement::FromConf`] and `wanted` is not below the kernel's
    /// directory.
    pub(crate) fn directory(&self, wanted: &str) -> Result<PathBuf, BadPlace> {
        if let Self::Fixed(place) = self {
            return Ok(place.clone());
        }
        below(wanted).ok_or_else(|| BadPlace(wanted.to_owned()))
    }
}

/// Normalises `place`, a path relative to a base directory. Returns `None` if `place` is the base
/// directory itself or outside it.
fn below(place: &str) -> Option<PathBuf> {
    paths::within(Path::new(place)).filter(|path| *path != Path::new(""))
}

/// Reads ADDON_MODULES_DIR from the settings of Red Hat's old module-init-tools. Returns `None` if
/// it is not set or not below a kernel's directory.
fn addon_modules_dir(trees: &Trees) -> Option<PathBuf> {
    let text = fs::read_to_string(trees.root.join("etc/sysconfig/module-init-tools")).ok()?;
    below(&assigned(&text, "ADDON_MODULES_DIR")?)
}

/// Returns the value of the variable `name` in `text`, which consists of plain shell assignments.
fn assigned(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))
        // As in a shell, the last assignment takes effect.
        .next_back()
        .map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
}

fn name(os_release: &str) -> String {
    let field = |name: &str| assigned(os_release, name);
    let id = field("ID").unwrap_or_default();
    match field("ID_LIKE") {
        Some(like) if id != "ubuntu" && !like.is_empty() => like,
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::symlink;

    #[rstest]
    #[case::arch("NAME=\"Arch Linux\"\nID=arch\nID_LIKE=\n", Some("updates/dkms"))]
    #[case::derivative("ID=cachyos\nID_LIKE=\"arch\"\n", Some("updates/dkms"))]
    #[case::ubuntu("ID=ubuntu\nID_LIKE=debian\n", Some("updates/dkms"))]
    #[case::fedora("ID=fedora\n", Some("extra"))]
    #[case::rhel("ID='rocky'\nID_LIKE='rhel centos fedora'\n", Some("extra"))]
    #[case::suse("ID=opensuse-tumbleweed\nID_LIKE=\"opensuse suse\"\n", Some("updates"))]
    #[case::alpine("ID=alpine\n", None)]
    #[case::empty("", None)]
    fn determines_the_placement_of_each_distribution(
        #[case] os_release: &str,
        #[case] want: Option<&str>,
    ) {
        let want = want.map_or(Placement::FromConf, |place| Placement::Fixed(place.into()));
        assert_eq!(Placement::of_distribution(&name(os_release)), want);
    }

    #[test]
    fn reads_both_os_release_paths_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        let placement = || Distribution::read(&trees).map(|it| it.placement(&Environment::fixed()));
        let error = placement().unwrap_err();
        assert!(error.to_string().starts_with("no os-release file below "));
        fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("usr/lib/os-release"), "ID=fedora").unwrap();
        assert_eq!(placement(), Ok(Placement::Fixed("extra".into())));
        fs::write(dir.path().join("usr/lib/ours"), "ID=arch").unwrap();
        symlink("/usr/lib/ours", dir.path().join("etc/os-release")).unwrap();
        assert_eq!(placement(), Ok(Placement::Fixed("updates/dkms".into())));
    }

    #[rstest]
    #[case::unknown(Some("ID=parabola\n"))]
    #[case::another_place(Some("ID=x\nID_LIKE=\"suse\"\n"))]
    #[case::no_os_release(None)]
    fn with_pacman_the_place_is_that_of_arch(#[case] os_release: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(PACMAN_DATABASE, "9\n");
        os_release.iter().for_each(|text| write("etc/os-release", text));
        let distribution = Distribution::read(&Trees::under(dir.path())).unwrap();
        let env = Environment::fixed();
        assert_eq!(distribution.placement(&env), Placement::Fixed("updates/dkms".into()));
        let env = env.with("ADDON_MODULES_DIR", "/extra");
        assert_eq!(distribution.placement(&env), Placement::Fixed("extra".into()));
    }

    #[rstest]
    #[case::usual("/kernel/drivers/acpi", Some("kernel/drivers/acpi"))]
    #[case::untidy("/extra//x/", Some("extra/x"))]
    #[case::outside("/kernel/../../../etc", None)]
    #[case::kernels_own_directory("/", None)]
    #[case::empty("", None)]
    fn rejects_places_outside_the_kernels_directory(
        #[case] wanted: &str,
        #[case] want: Option<&str>,
    ) {
        let place = Placement::FromConf.directory(wanted).ok();
        assert_eq!(place, want.map(PathBuf::from));
        let arch = Placement::Fixed("updates/dkms".into());
        assert_eq!(arch.directory(wanted), Ok("updates/dkms".into()));
    }
}
