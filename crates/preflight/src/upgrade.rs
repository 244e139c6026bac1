//! Finds and downloads the kernels, headers and module sources that the next `pacman -Syu` would
//! bring.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use alpm_hook::package_query::{self, PackageQuery, Packages};
use dkms_engine::facts::source_dirs;
use dkms_engine::machine::{Kernels, Machine};
use dkms_engine::os::durable::FileError;
use dkms_engine::os::process::{Environment, How, Program};
use tempfile::TempDir;

use crate::not_tried::NotTried;

/// The fields of a package that pacman prints: repository, name, version and file.
const FORMAT: &str = "%r\t%n\t%v\t%f";

/// The kernels, headers and module sources that the next upgrade would bring.
pub(crate) struct Upgrade<'a> {
    machine: &'a Machine,
    /// pacman's databases: the local one, and new copies of the sync databases.
    databases: TempDir,
    pub(crate) packages: Vec<UpgradePackage>,
}

/// A package of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UpgradePackage {
    repository: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// The name of the package file.
    file: String,
}

impl<'a> Upgrade<'a> {
    /// Finds the packages in new copies of the sync databases. pacman's own databases stay as they
    /// are. `query` is the path of alpm-query.
    pub(crate) fn find(machine: &'a Machine, query: &Path) -> Result<Self, NotTried> {
        let databases = copy_databases(machine)?;
        let mut upgrade = Self { machine, databases, packages: Vec::new() };
        upgrade.pacman(&["-Sy"])?;
        let listed = upgrade.pacman(&["-Su", "--print-format", FORMAT])?;
        let installed = names_of_installed(machine, query)?;
        upgrade.packages = UpgradePackage::list(&listed);
        upgrade.packages.retain(|package| package.is_of_interest(&installed));
        Ok(upgrade)
    }

    /// Returns the directory of the databases.
    pub(crate) fn databases(&self) -> &Path {
        self.databases.path()
    }

    /// Downloads the packages to pacman's cache, unless they are already there.
    pub(crate) fn download(&self) -> Result<(), NotTried> {
        // The dependencies of these packages are installed, or arrive with the upgrade.
        let mut words = vec!["-Sw".to_owned(), "-dd".to_owned()];
        words.extend(self.packages.iter().map(|it| format!("{}/{}", it.repository, it.name)));
        self.pacman(&words).map(|_| ())
    }

    /// Returns the paths of the package files in pacman's cache.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>, NotTried> {
        let dirs = setting(self.machine, "CacheDir")?;
        let find = |package: &UpgradePackage| {
            let mut files = dirs.iter().map(|dir| dir.join(&package.file));
            files
                .find(|file| file.is_file())
                .ok_or_else(|| NotTried::new(format!("{}: not in pacman's cache", package.file)))
        };
        self.packages.iter().map(find).collect()
    }

    fn pacman(&self, words: &[impl AsRef<str>]) -> Result<String, NotTried> {
        let mut args: Vec<OsString> = words.iter().map(|word| word.as_ref().into()).collect();
        args.extend(["--noconfirm", "--noprogressbar", "--logfile", "/dev/null"].map(Into::into));
        args.extend(["--dbpath".into(), self.databases().into()]);
        run(self.machine, "pacman", args)
    }
}

impl UpgradePackage {
    /// Parses pacman's output, which has the format [`FORMAT`].
    fn list(text: &str) -> Vec<Self> {
        let package = |line: &str| {
            let [repository, name, version, file] =
                line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into().ok()?;
            Some(Self { repository, name, version, file })
        };
        text.lines().filter_map(package).collect()
    }

    /// Returns true if the package can contain a kernel, headers or the source of a module.
    /// `installed` are the names of the installed packages that contain any of these. A package
    /// that is not installed counts by its name, because it can replace an installed package or be
    /// a new dependency.
    fn is_of_interest(&self, installed: &BTreeSet<String>) -> bool {
        installed.contains(&self.name)
            || self.name.ends_with("-dkms")
            || self.name.starts_with("linux-") && self.name.ends_with("-headers")
    }
}

/// Returns the names of the installed packages that own kernels, headers or module sources.
fn names_of_installed(machine: &Machine, query: &Path) -> Result<BTreeSet<String>, NotTried> {
    let (sources, _) = source_dirs(&machine.trees);
    let kernels = Kernels::read(&machine.trees)?;
    let kernels = kernels.all.into_iter().map(|kernel| kernel.release).collect();
    let lookups = PackageQuery { sources, kernels, ..PackageQuery::default() };
    let owners = package_query::ask(query, &machine.trees.root, &lookups)?;
    Ok(owner_names(&owners, &lookups))
}

fn owner_names(owners: &Packages, lookups: &PackageQuery) -> BTreeSet<String> {
    let sources = lookups.sources.iter().map(|dir| owners.of_source(dir));
    let kernels = lookups.kernels.iter();
    let kernels = kernels.flat_map(|it| [owners.of_kernel(it), owners.of_headers(it)]);
    sources.chain(kernels).flatten().map(|package| package.name.clone()).collect()
}

/// Copies the sync databases to a new directory and adds a link to the local database. pacman then
/// downloads only the databases that have changed since.
fn copy_databases(machine: &Machine) -> Result<TempDir, NotTried> {
    let own = setting(machine, "DBPath")?;
    let own = own.first().ok_or_else(|| NotTried::new("pacman-conf: no DBPath"))?;
    let parent = machine.temporary_dir();
    // pacman's download user must be able to enter the directory.
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("alpm-dkms-").permissions(Permissions::from_mode(0o755));
    let dir = builder.tempdir_in(&parent).map_err(FileError::when("create", &parent))?;
    let local = dir.path().join("local");
    symlink(own.join("local"), &local).map_err(FileError::when("create", &local))?;
    let sync = dir.path().join("sync");
    fs::create_dir(&sync).map_err(FileError::when("create", &sync))?;
    let there = fs::read_dir(own.join("sync")).into_iter().flatten().flatten();
    let mut args: Vec<OsString> =
        there.map(|entry| entry.path().into()).filter(is_database).collect();
    if !args.is_empty() {
        // The times tell pacman which databases have changed.
        args.splice(0..0, ["--preserve=timestamps".into(), "-t".into(), sync.into(), "--".into()]);
        run(machine, "cp", args)?;
    }
    Ok(dir)
}

fn is_database(path: &OsString) -> bool {
    path.to_str().is_some_and(|path| path.ends_with(".db") || path.ends_with(".db.sig"))
}

/// Returns the values of a setting of pacman that is a list of paths.
fn setting(machine: &Machine, name: &str) -> Result<Vec<PathBuf>, NotTried> {
    let text = run(machine, "pacman-conf", vec![name.into()])?;
    Ok(text.lines().map(PathBuf::from).collect())
}

/// Runs a program, and returns its output. A signal that ends this process also ends the program.
fn run(machine: &Machine, program: &str, args: Vec<OsString>) -> Result<String, NotTried> {
    // Downloads need the caller's http_proxy and the like.
    let env = Environment::of_caller();
    let failed = |why: &str| NotTried::new(format!("{program}: {why}"));
    let ended = Program::new(program, &env)
        .args(args)
        .confined(&machine.tools)
        .run()
        .map_err(|error| failed(&error.to_string()))?;
    if !ended.success() {
        let complaint = ended.complaint();
        let last = complaint.lines().last().filter(|_| ended.how != How::Interrupted);
        let why = last.map(|line| line.trim_start_matches("error: ").to_owned());
        return Err(failed(&why.unwrap_or_else(|| ended.how.to_string())));
    }
    Ok(String::from_utf8_lossy(&ended.output).into_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn parses_the_output_of_pacman() {
        let text =
            "core\tlinux\t7.2.1-1\tlinux-7.2.1-1-x86_64.pkg.tar.zst\n there is nothing to do\n";
        let linux = UpgradePackage {
            repository: "core".into(),
            name: "linux".into(),
            version: "7.2.1-1".into(),
            file: "linux-7.2.1-1-x86_64.pkg.tar.zst".into(),
        };
        assert_eq!(UpgradePackage::list(text), [linux]);
    }

    #[rstest]
    #[case::installed("linux", true)]
    #[case::new_source("nvidia-open-dkms", true)]
    #[case::new_headers("linux-lts-headers", true)]
    #[case::other_headers("vulkan-headers", false)]
    #[case::other("linux-firmware", false)]
    fn selects_packages(#[case] name: &str, #[case] expected: bool) {
        let name = name.to_owned();
        let package = UpgradePackage {
            repository: String::new(),
            name,
            version: String::new(),
            file: String::new(),
        };
        assert_eq!(package.is_of_interest(&["linux".to_owned()].into()), expected);
    }
}
