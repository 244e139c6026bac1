//! pacman's local database: who owns which path.

use std::fs;
use std::path::{Path, PathBuf};

use alpm::Alpm;
use serde::Serialize;

use crate::question::Asked;

/// A package that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Its name, e.g. `zfs-dkms`.
    pub name: String,
    /// Its full version, e.g. `2.4.4-1`.
    pub version: String,
}

/// The opened database.
pub struct Database {
    alpm: Alpm,
    root: PathBuf,
}

impl Database {
    /// Opens the database for reading. pacman's lock is neither taken nor looked at.
    ///
    /// # Errors
    /// A line for the user: where no database is, or what libalpm says against it.
    pub fn open(asked: &Asked) -> Result<Self, String> {
        let dbpath = match &asked.dbpath {
            Some(given) => given.clone(),
            None => configured(&asked.root),
        };
        // libalpm would make an empty database where there is none.
        if !dbpath.join("local/ALPM_DB_VERSION").is_file() {
            return Err(format!("{}: no pacman database is there", dbpath.display()));
        }
        let text = |path: &Path| path.as_os_str().as_encoded_bytes().to_owned();
        let alpm = Alpm::new(text(&asked.root), text(&dbpath))
            .map_err(|why| format!("{}: {why}", dbpath.display()))?;
        alpm.localdb().is_valid().map_err(|why| format!("{}: {why}", dbpath.display()))?;
        Ok(Self { alpm, root: asked.root.clone() })
    }

    /// The owner of each path, in their order; a directory may be named with or without its
    /// final `/`. Every package's file list is read at most once.
    #[must_use]
    pub fn owners(&self, paths: &[Vec<u8>]) -> Vec<Option<Package>> {
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
                    *owner = Some(Package {
                        name: package.name().to_owned(),
                        version: package.version().to_string(),
                    });
                }
            }
        }
        owners
    }

    /// The package base that a kernel's directory names: the first line of its `pkgbase` file.
    #[must_use]
    pub fn pkgbase(&self, release: &str) -> Option<String> {
        let file = self.root.join("usr/lib/modules").join(release).join("pkgbase");
        let text = fs::read_to_string(file).ok()?;
        let name = text.lines().next()?.trim();
        // What a package may be called (PKGBUILD(5)).
        let fits = |c: char| c.is_ascii_alphanumeric() || "@._+-".contains(c);
        (!name.is_empty() && name.chars().all(fits)).then(|| name.to_owned())
    }
}

/// The `DBPath` of the root's `pacman.conf`, as far as a plain line of it says so, else pacman's
/// default. Files that it includes are not read.
fn configured(root: &Path) -> PathBuf {
    let text = fs::read_to_string(root.join("etc/pacman.conf")).unwrap_or_default();
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "DBPath").then(|| value.trim().to_owned())
    });
    let path = value.filter(|it| !it.is_empty()).unwrap_or("/var/lib/pacman/".to_owned());
    root.join(path.trim_start_matches('/'))
}
