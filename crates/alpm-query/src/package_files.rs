//! Reads package files, and finds them in pacman's cache directories.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use alpm::{Alpm, LoadedPackage, SigLevel};

use crate::database::{may_concern_dkms, readable};

/// The directories whose files no build of a module reads.
const HARMLESS: [&str; 9] = [
    "etc/",
    "usr/lib/depmod.d/",
    "usr/lib/firmware/",
    "usr/lib/initcpio/",
    "usr/lib/modprobe.d/",
    "usr/lib/modules-load.d/",
    "usr/lib/systemd/",
    "usr/lib/udev/",
    "usr/share/",
];

/// The maximum number of kernel objects that are listed for each kernel.
const OBJECTS: usize = 9;

/// A package file whose metadata and file list have been read.
pub struct PackageFile<'a> {
    /// The absolute path.
    pub path: String,
    /// The name of the package.
    pub name: String,
    /// The version of the package.
    pub version: String,
    /// The package as libalpm read it.
    pub package: LoadedPackage<'a>,
}

impl<'a> PackageFile<'a> {
    /// Reads a package file. libalpm reads only the first members of the file, which include the
    /// file list. Returns `None` if the file is not a package, or if its path, name or version is
    /// not UTF-8.
    pub fn load(alpm: &'a Alpm, path: &Path) -> Option<Self> {
        // Opening a FIFO would wait for its writer.
        if !path.is_absolute() || !path.is_file() {
            return None;
        }
        let package = alpm.pkg_load(path.as_os_str().as_bytes(), true, SigLevel::NONE).ok()?;
        let (name, version) =
            readable(|| (package.name().to_owned(), package.version().to_string()))?;
        Some(Self { path: path.to_str()?.to_owned(), name, version, package })
    }

    /// Returns true if exactly this package is installed. Compares the package's file list, which
    /// contains the digests of all files, with the copy in pacman's local database.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this program does not use the engine")]
    pub fn is_installed(&self, alpm: &Alpm) -> bool {
        let entry = format!("local/{}-{}/mtree", self.name, self.version);
        let Ok(installed) = fs::read(Path::new(alpm.dbpath()).join(entry)) else { return false };
        let mut command = Command::new("bsdtar");
        command.args(["-xOqf", &self.path, ".MTREE"]).stdin(Stdio::null()).stderr(Stdio::null());
        command.output().is_ok_and(|ended| ended.status.success() && ended.stdout == installed)
    }

    /// Returns the targets that this package contains.
    pub fn contained(&self, targets: &BTreeSet<Vec<u8>>) -> BTreeSet<Vec<u8>> {
        let files = self.package.files();
        // libalpm takes C strings.
        let is_contained =
            |path: &&Vec<u8>| !path.contains(&0) && files.contains(path.as_slice()).is_some();
        targets.iter().filter(is_contained).cloned().collect()
    }

    /// Returns the paths in this package that trigger the hooks.
    pub fn triggers(&self) -> BTreeSet<Vec<u8>> {
        let names = self.package.files().files().iter().map(alpm::File::name);
        names.filter(|path| is_trigger(path)).map(<[u8]>::to_vec).collect()
    }

    /// Returns the names of all kernel modules of the kernels in this package, with `-` replaced by
    /// `_`.
    pub fn modules(&self) -> BTreeSet<String> {
        let paths = self.package.files();
        let paths = paths.files().iter().filter_map(|file| str::from_utf8(file.name()).ok());
        let objects = paths.filter(|path| release_of_object(path).is_some());
        let name =
            |path: &str| Some(path.rsplit('/').next()?.split(".ko").next()?.replace('-', "_"));
        objects.filter_map(name).collect()
    }

    /// Returns true if the package contains a module's source and, in other directories, files that
    /// the module's build may read.
    pub fn has_files_outside(&self) -> bool {
        let files = self.package.files();
        let files = files.files().iter().map(alpm::File::name);
        let (mut has_source, mut has_others) = (false, false);
        for path in files.filter(|path| !path.ends_with(b"/")) {
            let is_source = path.starts_with(b"usr/src/");
            has_source |= is_source && is_trigger(path);
            let is_harmless = HARMLESS.iter().any(|dir| path.starts_with(dir.as_bytes()));
            has_others |= !is_source && !is_harmless;
        }
        has_source && has_others
    }

    /// Returns the first kernel objects of each kernel in this package. Skips names that are not
    /// UTF-8.
    pub fn objects(&self) -> Vec<String> {
        let mut counts = BTreeMap::<&str, usize>::new();
        let mut objects = Vec::new();
        for file in self.package.files().files() {
            let Ok(path) = str::from_utf8(file.name()) else { continue };
            let Some(release) = release_of_object(path) else { continue };
            let count = counts.entry(release).or_default();
            *count += 1;
            if *count <= OBJECTS {
                objects.push(path.to_owned());
            }
        }
        objects
    }
}

/// Returns the kernel release in the path of a kernel's own object; `None` for other paths.
fn release_of_object(path: &str) -> Option<&str> {
    let (release, path) = path.strip_prefix("usr/lib/modules/")?.split_once('/')?;
    let (_, name) = path.strip_prefix("kernel/")?.rsplit_once('/').or(Some(("", path)))?;
    (name.ends_with(".ko") || name.contains(".ko.")).then_some(release)
}

/// Returns true if the hooks trigger on this path (`05-dkms-journal.hook`).
fn is_trigger(path: &[u8]) -> bool {
    let Ok(path) = str::from_utf8(path) else { return false };
    if let Some((_, inner)) = path.strip_prefix("usr/src/").and_then(|it| it.split_once('/')) {
        return inner == "dkms.conf";
    }
    let inner = path.strip_prefix("usr/lib/modules/").and_then(|it| it.split_once('/'));
    matches!(inner, Some((_, "build/include/" | "build" | "modules.order" | "modules.alias")))
}

/// The package files in pacman's cache directories.
#[derive(Debug, Default)]
pub struct Cache {
    files: BTreeMap<OsString, PathBuf>,
}

impl Cache {
    /// Lists the directories. A file in an earlier directory hides one of the same name in a later
    /// directory, as in pacman.
    pub fn list(directories: &[PathBuf]) -> Self {
        let mut cache = Self::default();
        for directory in directories {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if is_package_name(&entry.file_name()) {
                    cache.files.entry(entry.file_name()).or_insert_with(|| entry.path());
                }
            }
        }
        cache
    }

    /// Returns the path of the file with this name.
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&Path> {
        self.files.get(name.as_ref()).map(PathBuf::as_path)
    }

    /// Returns all files. Files whose name suggests a kernel, headers or a module come first.
    /// Within each group, the newest files come first.
    pub fn newest_first(&self) -> Vec<&Path> {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by_cached_key(|(name, path)| {
            let modified = fs::metadata(path).and_then(|found| found.modified()).ok();
            (!may_concern_dkms(&name.to_string_lossy()), Reverse(modified))
        });
        files.into_iter().map(|(_, path)| path.as_path()).collect()
    }
}

/// Returns true for `NAME.pkg.tar` and its compressed forms, but not for signatures or partial
/// downloads.
fn is_package_name(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let Some((_, compression)) = name.rsplit_once(".pkg.tar") else { return false };
    compression.strip_prefix('.').map_or(compression.is_empty(), |it| !it.contains('.'))
        && compression != ".sig"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_names_of_packages() {
        for name in ["a-1-1-any.pkg.tar", "a-1-1-any.pkg.tar.zst", "a.pkg.tar.b.pkg.tar.xz"] {
            assert!(is_package_name(OsStr::new(name)), "{name}");
        }
        for name in ["a.pkg.tar.zst.sig", "a.pkg.tar.zst.part", "a.pkg.tar.sig", "a.tar", ""] {
            assert!(!is_package_name(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn knows_kernel_objects() {
        for (path, release) in [
            ("usr/lib/modules/7.2/kernel/fs/ext4.ko.zst", Some("7.2")),
            ("usr/lib/modules/7.2/kernel/a.ko", Some("7.2")),
            ("usr/lib/modules/7.2/kernel/fs/", None),
            ("usr/lib/modules/7.2/updates/dkms/a.ko", None),
            ("usr/lib/modules/7.2/kernel/a.ko.d/readme", None),
            ("usr/lib/modules/a.ko", None),
        ] {
            assert_eq!(release_of_object(path), release, "{path}");
        }
    }

    #[test]
    fn knows_the_triggers_of_the_hooks() {
        for path in ["usr/src/a-1/dkms.conf", "usr/lib/modules/7.2/modules.order"] {
            assert!(is_trigger(path.as_bytes()), "{path}");
        }
        for path in ["usr/src/a/b/dkms.conf", "usr/lib/modules/7.2/kernel/build", "usr/src/a-1/"] {
            assert!(!is_trigger(path.as_bytes()), "{path}");
        }
        assert!(!is_trigger(b"usr/src/\xff/dkms.conf"));
    }
}
