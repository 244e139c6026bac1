//! Reads from pacman's local database which installed package owns a path.
//!
//! `DBPATH/local` contains a directory for each package. When pacman installs a package, it
//! extracts the package, then writes `desc`, and then `files`. When pacman removes a package, it
//! deletes the package's own files first, and then `files` and `desc`. Therefore, a package with
//! both `desc` and `files` has been extracted completely.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Returns, for each of `paths`, the name of the installed package that owns it. Omits paths that no
/// package owns.
///
/// The paths have no leading slash, and paths of directories end with a slash, as in pacman's own
/// lists. `database` is pacman's database directory, usually `/var/lib/pacman`. A package
/// whose installation is unfinished owns no paths.
///
/// # Errors
/// An I/O error if the database cannot be listed or a file in it cannot be read.
pub fn owners(database: &Path, paths: &BTreeSet<String>) -> io::Result<BTreeMap<String, String>> {
    owners_among(database, "", paths)
}

/// Like [`owners`], but reads only the packages whose names begin with `prefix`.
pub(super) fn owners_among(
    database: &Path,
    prefix: &str,
    paths: &BTreeSet<String>,
) -> io::Result<BTreeMap<String, String>> {
    let mut owners = BTreeMap::new();
    if paths.is_empty() {
        return Ok(owners);
    }
    for entry in fs::read_dir(database.join("local"))? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        let dir = entry.path();
        let (Some(desc), Some(files)) = (read(&dir.join("desc"))?, read(&dir.join("files"))?)
        else {
            continue;
        };
        let mut owned = section(&files, "FILES").filter(|path| paths.contains(*path)).peekable();
        if owned.peek().is_none() {
            continue;
        }
        let Some(name) = section(&desc, "NAME").next() else { continue };
        owners.extend(owned.map(|path| (path.to_owned(), name.to_owned())));
    }
    Ok(owners)
}

/// Returns true if the database contains an entry for `package`, even an incomplete one.
///
/// # Errors
/// An I/O error if the database cannot be listed.
pub fn lists(database: &Path, package: &str) -> io::Result<bool> {
    for entry in fs::read_dir(database.join("local"))? {
        if is_of(&entry?.file_name(), package) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the directory of `package` in the database, or `None` if the package is not installed.
///
/// If pacman was interrupted, a package can have two directories. Such a package counts as not
/// installed.
///
/// # Errors
/// An I/O error if the database cannot be listed.
pub(super) fn directory(database: &Path, package: &str) -> io::Result<Option<PathBuf>> {
    let mut found = None;
    for entry in fs::read_dir(database.join("local"))? {
        let entry = entry?;
        if is_of(&entry.file_name(), package) && found.replace(entry.path()).is_some() {
            return Ok(None);
        }
    }
    Ok(found)
}

/// Returns the names of the packages that pacman was installing or removing when it was killed, each
/// with the name of its directory in the database.
///
/// # Errors
/// An I/O error if the database cannot be listed.
pub(super) fn unfinished(database: &Path) -> io::Result<BTreeSet<(String, OsString)>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(database.join("local"))? {
        let entry = entry?;
        let dir = entry.path();
        let is_complete = ["desc", "files"].iter().all(|file| dir.join(file).exists());
        let package = package_of(&entry.file_name()).filter(|_| dir.is_dir() && !is_complete);
        found.extend(package.map(|package| (package, entry.file_name())));
    }
    Ok(found)
}

/// Returns true if `dir`, the name of a directory in the database, is `package-VERSION-RELEASE`.
fn is_of(dir: &OsStr, package: &str) -> bool {
    package_of(dir).as_deref() == Some(package)
}

/// Returns the package whose directory in the database is `dir`, named `package-VERSION-RELEASE`.
fn package_of(dir: &OsStr) -> Option<String> {
    dir.to_string_lossy().rsplitn(3, '-').nth(2).map(str::to_owned)
}

/// Returns the content of a file in the directory of a package, or `None` if there is no such file.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        // The file `ALPM_DB_VERSION` is beside the directories of the packages.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns the lines of the section `%NAME%`, which ends with an empty line.
fn section<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = &'t str> {
    let is_before_heading = move |line: &&str| {
        line.strip_prefix('%').and_then(|line| line.strip_suffix('%')) != Some(name)
    };
    text.lines().skip_while(is_before_heading).skip(1).take_while(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "usr/src/foo-1/dkms.conf";
    const HEADERS: &str = "usr/lib/modules/7.2/build/include/";

    fn package(database: &Path, name: &str, desc: Option<&str>, files: Option<&str>) {
        let dir = database.join("local").join(name);
        fs::create_dir_all(&dir).unwrap();
        for (file, text) in [("desc", desc), ("files", files)] {
            if let Some(text) = text {
                fs::write(dir.join(file), text).unwrap();
            }
        }
    }

    fn owners_in(database: &Path) -> Vec<(String, String)> {
        let paths = [SOURCE, HEADERS].map(str::to_owned).into();
        owners(database, &paths).unwrap().into_iter().collect()
    }

    fn owned(path: &str, name: &str) -> (String, String) {
        (path.to_owned(), name.to_owned())
    }

    #[test]
    fn finds_the_package_that_lists_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let desc = |name| format!("%NAME%\n{name}\n\n%VERSION%\n1-1\n");
        let foo = format!("%FILES%\nusr/\nusr/src/foo-1/\n{SOURCE}\n\n%BACKUP%\n{HEADERS}\tabc\n");
        package(dir.path(), "foo-dkms-1-1", Some(&desc("foo-dkms")), Some(&foo));
        let headers = format!("%FILES%\n{HEADERS}\n{HEADERS}linux/\n");
        package(dir.path(), "linux-headers-7.2-1", Some(&desc("linux-headers")), Some(&headers));
        fs::write(dir.path().join("local/ALPM_DB_VERSION"), "9\n").unwrap();
        assert_eq!(
            owners_in(dir.path()),
            [owned(HEADERS, "linux-headers"), owned(SOURCE, "foo-dkms")]
        );
    }

    #[test]
    fn an_unfinished_package_owns_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let files = format!("%FILES%\n{SOURCE}\n");
        package(dir.path(), "foo-dkms-1-1", None, Some(&files));
        package(dir.path(), "foo-dkms-2-1", Some("%NAME%\nfoo-dkms\n"), None);
        package(dir.path(), "bar-dkms-2-1", None, None);
        package(dir.path(), "empty-2-1", Some(""), Some(&files));
        assert_eq!(owners_in(dir.path()), []);
    }

    #[test]
    fn an_incomplete_entry_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        package(dir.path(), "foo-dkms-2:1.0-1", Some("%NAME%\nfoo-dkms\n"), None);
        package(dir.path(), "bar-1.0-1", None, None);
        for (package, want) in [("foo-dkms", true), ("bar", true), ("foo", false), ("dkms", false)]
        {
            assert_eq!(lists(dir.path(), package).unwrap(), want, "{package}");
            assert_eq!(directory(dir.path(), package).unwrap().is_some(), want, "{package}");
        }
        assert!(lists(&dir.path().join("none"), "foo").is_err());
    }

    #[test]
    fn packages_without_both_files_are_unfinished() {
        let dir = tempfile::tempdir().unwrap();
        let desc = Some("%NAME%\nfoo\n");
        package(dir.path(), "foo-dkms-1-1", None, Some("%FILES%\n"));
        package(dir.path(), "bar-2:1.0-1", desc, None);
        package(dir.path(), "new-1-1", None, None);
        package(dir.path(), "complete-1-1", desc, Some("%FILES%\n"));
        fs::write(dir.path().join("local/ALPM_DB_VERSION"), "9\n").unwrap();
        let want = [("bar", "bar-2:1.0-1"), ("foo-dkms", "foo-dkms-1-1"), ("new", "new-1-1")];
        let want = want.map(|(package, dir)| (package.to_owned(), dir.into()));
        assert_eq!(unfinished(dir.path()).unwrap(), want.into());
    }

    #[test]
    fn an_unreadable_database_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [SOURCE.to_owned()].into();
        assert!(owners(dir.path(), &paths).is_err(), "there is no database");
        fs::create_dir_all(dir.path().join("local/foo-dkms-1-1/desc")).unwrap();
        assert!(owners(dir.path(), &paths).is_err(), "desc is a directory");
    }
}
