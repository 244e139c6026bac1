//! Finds the owners of paths in pacman's local database.

use std::fs;
use std::path::{Path, PathBuf};

use alpm::Alpm;
use serde::Serialize;

use crate::args::QueryArgs;

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocalPackage {
    /// The name, e.g. `zfs-dkms`.
    pub name: String,
    /// The full version, e.g. `2.4.4-1`.
    pub version: String,
}

/// pacman's local database, opened for reading.
pub struct Database {
    alpm: Alpm,
    root: PathBuf,
}

impl Database {
    /// Opens the database for reading, without taking pacman's lock.
    ///
    /// # Errors
    /// A one-line message if the database does not exist or libalpm cannot open it.
    pub fn open(args: &QueryArgs) -> Result<Self, String> {
        let dbpath = match &args.dbpath {
            Some(given) => given.clone(),
            None => configured_dbpath(&args.root),
        };
        // libalpm would create a missing database.
        if !dbpath.join("local/ALPM_DB_VERSION").is_file() {
            return Err(format!("{}: not a pacman database", dbpath.display()));
        }
        let text = |path: &Path| path.as_os_str().as_encoded_bytes().to_owned();
        let alpm = Alpm::new(text(&args.root), text(&dbpath))
            .map_err(|why| format!("{}: {why}", dbpath.display()))?;
        alpm.localdb().is_valid().map_err(|why| format!("{}: {why}", dbpath.display()))?;
        Ok(Self { alpm, root: args.root.clone() })
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
