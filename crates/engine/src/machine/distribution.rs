//! The distribution of a machine, and its place for built modules below a kernel's directory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::Trees;
use crate::os::process::Environment;
use crate::os::{paths, symlinks};

/// The place of built modules below `L/K`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// The distribution's own, whatever a `dkms.conf` says: `updates/dkms` on Arch.
    Fixed(PathBuf),
    /// Each module's `DEST_MODULE_LOCATION`.
    FromConf,
}

/// Neither place of the `os-release` file has one. dkms gives up then (exit code 4): on an
/// unknown distribution, modules would be placed where depmod does not look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no os-release file below {root}: cannot tell where this distribution keeps its modules")]
pub struct NoOsRelease {
    /// The root that was looked at.
    pub root: String,
}

/// A `DEST_MODULE_LOCATION` that does not stay in the kernel's directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be a module's place: it must be a directory below the kernel's own")]
pub struct BadPlace(pub String);

/// The distribution of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// What dkms's tables compare with: `ID` for Ubuntu, else `ID_LIKE`, else `ID`.
    name: String,
    /// The directory that old Red Hat's module-init-tools set for all tools.
    addon_dir: Option<PathBuf>,
}

impl Distribution {
    /// Reads `os-release` (os-release(5)).
    ///
    /// # Errors
    /// [`NoOsRelease`] if there is none, or it cannot be read.
    pub(crate) fn read(trees: &Trees) -> Result<Self, NoOsRelease> {
        let files = ["etc/os-release", "usr/lib/os-release"];
        let mut files = files
            .iter()
            .filter_map(|file| symlinks::resolve(&trees.root, &trees.root.join(file)).ok());
        let text = files
            .find_map(|path| fs::read(path).ok())
            .ok_or_else(|| NoOsRelease { root: trees.root.display().to_string() })?;
        let name = name(&String::from_utf8_lossy(&text));
        Ok(Self { name, addon_dir: addon_modules_dir(trees) })
    }

    /// Returns true if its name begins with one of these, as dkms compares them.
    #[must_use]
    pub(crate) fn is_any(&self, prefixes: &[&str]) -> bool {
        prefixes.iter().any(|prefix| self.name.starts_with(prefix))
    }

    /// Returns the place of built modules (dkms-behaviour 5.1). ADDON_MODULES_DIR, in `env` or in
    /// the file of the distribution, is above all tables.
    #[must_use]
    pub(crate) fn placement(&self, env: &Environment) -> Placement {
        let set = env.get("ADDON_MODULES_DIR").map(|dir| dir.to_string_lossy());
        let set = set.and_then(|dir| below(&dir));
        match set.or_else(|| self.addon_dir.clone()) {
            Some(dir) => Placement::Fixed(dir),
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

    /// The directory below `L/K` for a module whose conf says `wanted`, e.g. `/kernel/drivers`.
    ///
    /// # Errors
    /// [`BadPlace`] if it is the conf that decides, and it names no directory below `L/K`.
    pub(crate) fn directory(&self, wanted: &str) -> Result<PathBuf, BadPlace> {
        if let Self::Fixed(place) = self {
            return Ok(place.clone());
        }
        below(wanted).ok_or_else(|| BadPlace(wanted.to_owned()))
    }
}

/// A directory below the one that it is put behind; `None` if it is that one, or leads out of it.
fn below(place: &str) -> Option<PathBuf> {
    paths::within(Path::new(place)).filter(|path| *path != Path::new(""))
}

/// What old Red Hat's module-init-tools set for all tools: ADDON_MODULES_DIR, in a shell file.
fn addon_modules_dir(trees: &Trees) -> Option<PathBuf> {
    let text = fs::read_to_string(trees.root.join("etc/sysconfig/module-init-tools")).ok()?;
    below(&assigned(&text, "ADDON_MODULES_DIR")?)
}

/// The last value that a file of plain shell assignments gives a variable.
fn assigned(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))
        // The file is shell: the last assignment counts.
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
    fn looks_the_distribution_up(#[case] os_release: &str, #[case] want: Option<&str>) {
        let want = want.map_or(Placement::FromConf, |place| Placement::Fixed(place.into()));
        assert_eq!(Placement::of_distribution(&name(os_release)), want);
    }

    #[test]
    fn reads_either_file_inside_the_root() {
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
    #[case::usual("/kernel/drivers/acpi", Some("kernel/drivers/acpi"))]
    #[case::untidy("/extra//x/", Some("extra/x"))]
    #[case::up("/kernel/../../../etc", None)]
    #[case::nowhere("/", None)]
    #[case::empty("", None)]
    fn keeps_places_in_the_kernels_directory(#[case] wanted: &str, #[case] want: Option<&str>) {
        let place = Placement::FromConf.directory(wanted).ok();
        assert_eq!(place, want.map(PathBuf::from));
        let arch = Placement::Fixed("updates/dkms".into());
        assert_eq!(arch.directory(wanted), Ok("updates/dkms".into()));
    }
}
