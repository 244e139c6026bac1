//! Reads pacman's databases.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use alpm::{Alpm, Db, Package, SigLevel};
use serde::Serialize;

use crate::configuration::Configuration;

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocalPackage {
    /// The name, e.g. `zfs-dkms`.
    pub name: String,
    /// The full version, e.g. `2.4.4-1`.
    pub version: String,
}

/// A package in a database.
#[derive(Clone, Copy)]
pub struct Listed<'a> {
    /// The name.
    pub name: &'a str,
    /// The full version.
    pub version: &'a str,
    /// The package itself, with the rest of its description.
    pub package: &'a Package,
}

/// Returns the result of `read`, or `None` if `read` panics. The alpm crate panics on text that is
/// not UTF-8, and package files may contain any bytes.
pub fn readable<T>(read: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(read)).ok()
}

/// Returns true if the name of a package or package file suggests a kernel, headers or a module.
pub fn may_concern_dkms(name: &str) -> bool {
    name.starts_with("linux") || name.contains("headers") || name.contains("dkms")
}

/// pacman's databases, opened for reading.
pub struct Database {
    alpm: Alpm,
    root: PathBuf,
}

impl Database {
    /// Opens the local database for reading, without taking pacman's lock. If `dbpath` is `None`,
    /// opens the database that `pacman.conf` names.
    ///
    /// # Errors
    /// A one-line message if the database does not exist or libalpm cannot open it.
    pub fn open(root: &Path, dbpath: Option<&Path>) -> Result<Self, String> {
        let dbpath = dbpath.map_or_else(|| configured_dbpath(root), Path::to_owned);
        // libalpm would create a missing database.
        if !dbpath.join("local/ALPM_DB_VERSION").is_file() {
            return Err(format!("{}: not a pacman database", dbpath.display()));
        }
        let text = |path: &Path| path.as_os_str().as_encoded_bytes().to_owned();
        let alpm = Alpm::new(text(root), text(&dbpath))
            .map_err(|why| format!("{}: {why}", dbpath.display()))?;
        alpm.localdb().is_valid().map_err(|why| format!("{}: {why}", dbpath.display()))?;
        Ok(Self { alpm, root: root.to_owned() })
    }

    /// Adds the sync databases and the ignored packages of a configuration. A sync database that is
    /// missing or damaged counts as empty.
    pub fn configure(&mut self, configuration: &Configuration) {
        for repository in &configuration.repositories {
            let _invalid_name = self.alpm.register_syncdb(repository.as_str(), SigLevel::NONE);
        }
        for name in &configuration.ignored {
            let _out_of_memory = self.alpm.add_ignorepkg(name.as_str());
        }
        for group in &configuration.ignored_groups {
            let _out_of_memory = self.alpm.add_ignoregroup(group.as_str());
        }
    }

    /// Returns the handle of libalpm.
    #[must_use]
    pub fn alpm(&self) -> &Alpm {
        &self.alpm
    }

    /// Returns the installed packages.
    #[must_use]
    pub fn installed(&self) -> Vec<Listed<'_>> {
        listed(self.alpm.localdb()).collect()
    }

    /// Returns the packages in the sync databases, in the order of the repositories.
    #[must_use]
    pub fn available(&self) -> Vec<Listed<'_>> {
        self.alpm.syncdbs().iter().flat_map(listed).collect()
    }

    /// Returns the version of a package in the first sync database that contains the package;
    /// `None` if no sync database contains it.
    #[must_use]
    pub fn available_version(&self, name: &str) -> Option<String> {
        let found = self.alpm.syncdbs().iter().find_map(|database| database.pkg(name).ok());
        Some(Listed::of(found?)?.version.to_owned())
    }

    /// Returns an installed package.
    #[must_use]
    pub fn installed_package(&self, name: &str) -> Option<Listed<'_>> {
        Listed::of(self.alpm.localdb().pkg(name).ok()?)
    }

    /// Returns the owner of each path, in the order of `paths`; `None` for an unowned path. The
    /// path of a directory may omit the final `/`. Reads each package's file list at most once.
    #[must_use]
    pub fn owners(&self, paths: &[Vec<u8>]) -> Vec<Option<LocalPackage>> {
        let mut owners = vec![None; paths.len()];
        for package in self.alpm.localdb().pkgs() {
            let files = package.files();
            for (path, owner) in paths.iter().zip(&mut owners).filter(|(_, owner)| owner.is_none())
            {
                let as_directory = [path.as_slice(), b"/"].concat();
                if files
                    .contains(path.as_slice())
                    .or_else(|| files.contains(as_directory))
                    .is_some()
                {
                    *owner = Some(LocalPackage {
                        name: package.name().to_owned(),
                        version: package.version().to_string(),
                    });
                }
            }
        }
        owners
    }

    /// Returns the first line of a kernel's `pkgbase` file; `None` if the file is missing or the
    /// line is not a package name.
    #[must_use]
    pub fn pkgbase(&self, release: &str) -> Option<String> {
        let file = self.root.join("usr/lib/modules").join(release).join("pkgbase");
        let text = fs::read_to_string(file).ok()?;
        let name = text.lines().next()?.trim();
        // The characters that are allowed in a package name (PKGBUILD(5)).
        let fits = |c: char| c.is_ascii_alphanumeric() || "@._+-".contains(c);
        (!name.is_empty() && name.chars().all(fits)).then(|| name.to_owned())
    }
}

impl<'a> Listed<'a> {
    /// Returns `None` if the name or version is not UTF-8.
    fn of(package: &'a Package) -> Option<Self> {
        readable(|| Self { name: package.name(), version: package.version().as_str(), package })
    }
}

fn listed(database: &Db) -> impl Iterator<Item = Listed<'_>> {
    database.pkgs().iter().filter_map(Listed::of)
}

/// Returns the `DBPath` in `etc/pacman.conf` below `root`, or pacman's default if it is not set.
/// Does not read included files.
fn configured_dbpath(root: &Path) -> PathBuf {
    let text = fs::read_to_string(root.join("etc/pacman.conf")).unwrap_or_default();
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "DBPath").then(|| value.trim().to_owned())
    });
    let path = value.filter(|it| !it.is_empty()).unwrap_or("/var/lib/pacman/".to_owned());
    root.join(path.trim_start_matches('/'))
}
