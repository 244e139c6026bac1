//! The whole environment of a child: nothing else reaches it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs are looked up in a fixed environment, whatever the user's PATH says.
pub(super) const FIXED_PATH: &str = "/usr/bin:/usr/sbin:/bin:/sbin";

/// What the caller's environment must not hand to a build: dkms drops the compiler variables
/// (dkms-behaviour 1.1), and the flags of a make above us are not meant for the makes below us.
const NOT_HANDED_ON: [&str; 8] =
    ["CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"];

/// All the environment variables of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The environment of everything a hook starts: PATH, `LC_ALL=C`, `HOME=/root`, no more.
    /// pacman hands on the user's own, and a foreign gcc or a stray `ARCH` in there spoils builds.
    #[must_use]
    pub fn fixed() -> Self {
        Self(BTreeMap::new()).with("PATH", FIXED_PATH).with("LC_ALL", "C").with("HOME", "/root")
    }

    /// What this process was started with, as dkms hands it on: without the compiler variables
    /// and without those of a make above us. For the command line, where the user is in charge.
    #[must_use]
    pub fn of_caller() -> Self {
        let mut all: BTreeMap<_, _> = std::env::vars_os().collect();
        for name in NOT_HANDED_ON {
            all.remove(OsStr::new(name));
        }
        Self(all)
    }

    /// The same with one variable set.
    #[must_use]
    pub fn with(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// The same with one variable absent.
    #[must_use]
    pub(crate) fn without(mut self, name: impl AsRef<OsStr>) -> Self {
        self.0.remove(name.as_ref());
        self
    }

    /// The same with programs of `dir` found before all others.
    #[must_use]
    pub fn first_in_path(self, dir: &Path) -> Self {
        let mut path = dir.as_os_str().to_owned();
        path.push(":");
        path.push(self.search_path());
        self.with("PATH", path)
    }

    /// The value of one variable.
    #[must_use]
    pub(crate) fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        self.0.get(name.as_ref()).map(OsString::as_os_str)
    }

    /// Every variable with its value, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// The program of that name which a child with this environment would start.
    #[must_use]
    pub(crate) fn find(&self, name: impl AsRef<Path>) -> Option<PathBuf> {
        let dirs = std::env::split_paths(self.search_path());
        dirs.map(|dir| dir.join(&name)).find(|path| is_program(path))
    }

    /// Where a child with this environment looks for programs.
    pub(super) fn search_path(&self) -> &OsStr {
        self.get("PATH").unwrap_or(OsStr::new(FIXED_PATH))
    }
}

/// Returns true if a file is executable.
pub(crate) fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn programs_are_found_in_the_order_of_the_path() {
        let room = tempfile::tempdir().unwrap();
        let place = |dir: &str, mode: u32| {
            let file = room.path().join(dir).join("kmodsign");
            fs::create_dir(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            file
        };
        let (_, second, _) = (place("a", 0o644), place("b", 0o755), place("c", 0o755));
        let path = std::env::join_paths(["a", "b", "c"].map(|dir| room.path().join(dir))).unwrap();
        let env = Environment::fixed().with("PATH", path);
        assert_eq!(env.find("kmodsign"), Some(second));
        assert_eq!(env.find("kmodverify"), None);
    }

    #[test]
    fn a_directory_can_come_first_in_the_path() {
        let env = Environment::fixed().first_in_path(Path::new("/t/.bin"));
        assert_eq!(env.get("PATH").unwrap(), "/t/.bin:/usr/bin:/usr/sbin:/bin:/sbin");
        let bare = Environment::fixed().without("PATH").first_in_path(Path::new("/t"));
        assert_eq!(bare.get("PATH").unwrap(), "/t:/usr/bin:/usr/sbin:/bin:/sbin");
    }

    #[test]
    fn nothing_of_a_make_above_us_is_handed_on() {
        let env = Environment::of_caller();
        assert!(NOT_HANDED_ON.iter().all(|name| env.get(name).is_none()));
    }
}
