//! pacman's local database: which package owns a path.

use std::fs;
use std::path::{Path, PathBuf};

use alpm::Alpm;
use serde::Serialize;

use crate::args::QueryArgs;

/// A package that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocalPackage {
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
    /// Opens the database for reading, without pacman's lock.
    ///
    /// # Errors
    /// A one-line message if there is no database, or libalpm cannot open it.
    pub fn open(args: &QueryArgs) -> Result<Self, String> {
        let dbpath = match &args.dbpath {
            Some(given) => given.clone(),
            None => configured(&args.root),
        };
        // libalpm would make an empty database where there is none.
        if !dbpath.join("local/ALPM_DB_VERSION").is_file() {
            return Err(format!("{}: no pacman database is there", dbpath.display()));
        }
        let text = |path: &Path| path.as_os_str().as_encoded_bytes().to_owned();
        let alpm = Alpm::new(text(&args.root), text(&dbpath))
            .map_err(|why| format!("{}: {why}", dbpath.display()))?;
        alpm.localdb().is_valid().map_err(|why| format!("{}: {why}", dbpath.display()))?;
        Ok(Self { alpm, root: args.root.clone() })
    }

    /// Returns the owner of each path, in order; a directory needs no final `/`. Reads each package's
    /// file list at most once.
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

    /// Returns the first line of a kernel's `pkgbase` file.
    #[must_use]
    pub fn pkgbase(&self, release: &str) -> Option<String> {
        let file = self.root.join("usr/lib/modules").join(release).join("pkgbase");
        let text = fs::read_to_string(file).ok()?;
        let name = text.lines().next()?.trim();
        // The characters that a package name may contain (PKGBUILD(5)).
        let fits = |c: char| c.is_ascii_alphanumeric() || "@._+-".contains(c);
        (!name.is_empty() && name.chars().all(fits)).then(|| name.to_owned())
    }
}

/// Returns the `DBPath` of the root's `pacman.conf`, else pacman's default. Included files are not
/// read.
fn configured(root: &Path) -> PathBuf {
    let text = fs::read_to_string(root.join("etc/pacman.conf")).unwrap_or_default();
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "DBPath").then(|| value.trim().to_owned())
    });
    let path = value.filter(|it| !it.is_empty()).unwrap_or("/var/lib/pacman/".to_owned());
    root.join(path.trim_start_matches('/'))
}
