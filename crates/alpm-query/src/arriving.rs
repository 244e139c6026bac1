//! Finds the package files that a transaction is about to install.
//!
//! Three places are searched for the files: the command line of pacman, the downloaded packages of
//! the sync databases, and the rest of the cache directories. The search ends when a package file
//! is known for every target. A file in a cache directory is accepted only if its own file list
//! contains a target.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alpm::{Alpm, Pkg};
use serde::Serialize;

use crate::args::Transaction;
use crate::command_line::{self, CommandLine};
use crate::configuration::Configuration;
use crate::database::{Database, Listed, may_concern_dkms, readable};
use crate::no_extract::NoExtract;
use crate::package_files::{Cache, PackageFile};
use crate::relations::{is_bound_to, removed_by};
use crate::toolchain::{self, ReplacedTool};

/// The time limit of the search in the cache directories. Reading all files of a large cache takes
/// longer than a user wants to wait for the hook.
const SEARCH_LIMIT: Duration = Duration::from_secs(5);

/// The packages that a transaction is about to install.
#[derive(Debug, Serialize)]
pub struct Arriving {
    packages: Vec<ArrivingPackage>,
    /// The targets that no known file contains, and the given files that cannot be read.
    unresolved: Vec<String>,
    toolchain: Vec<ReplacedTool>,
    /// Whether the transaction upgrades all packages. True if the command line is unknown.
    upgrade: bool,
    /// The words of the command line of the process that runs the transaction.
    command: Vec<String>,
}

/// A package that is about to be installed.
#[derive(Debug, Serialize)]
struct ArrivingPackage {
    name: String,
    version: String,
    /// The absolute path of the package file.
    file: String,
    /// The installed version; `null` if the package is not installed.
    installed: Option<String>,
    /// Whether no sync database lists the package.
    foreign: bool,
    /// Whether exactly this package is installed.
    unchanged: bool,
    /// The installed packages that this package conflicts with or replaces.
    removes: BTreeSet<String>,
    /// The other packages that depend on exactly this version. Includes only packages that the
    /// transaction could install.
    bound: BTreeSet<String>,
    /// The installed size in bytes.
    size: u64,
    /// The first kernel objects of each kernel in this package.
    objects: Vec<String>,
    /// The names of all kernel modules of the kernels in this package.
    modules: BTreeSet<String>,
    /// Whether the package contains a module's source and, outside of it, files that the build may
    /// read.
    outside: bool,
    /// The files below `usr/src` and `usr/lib/modules` that pacman does not extract.
    not_extracted: Vec<String>,
    /// The targets that this package contains.
    paths: Vec<String>,
}

impl Arriving {
    /// Finds the packages that arrive on the machine at `root`. `dbpath` overrides the database
    /// directory of pacman's command line and configuration.
    ///
    /// # Errors
    /// A one-line message if the local database cannot be opened.
    pub fn find(
        root: &Path,
        dbpath: Option<&Path>,
        transaction: &Transaction,
    ) -> Result<Self, String> {
        let process = transaction.pacman.map(|pid| PathBuf::from(format!("/proc/{pid}")));
        let words = process.as_deref().map(command_line::words).unwrap_or_default();
        let saved = process.as_deref().and_then(command_line::saved_directory);
        let line = CommandLine::parse(&words, saved);
        let configuration = Configuration::read(root, line.as_ref());
        let mut database = Database::open(root, dbpath.or(configuration.dbpath.as_deref()))?;
        database.configure(&configuration);
        let available = database.available();
        let cache = Cache::list(&configuration.cache_dirs);

        let mut search = Search::new(database.alpm(), &transaction.targets);
        if transaction.files.is_empty() {
            let named = line.iter().flat_map(|line| named_files(line, &cache));
            named.for_each(|path| search.load_named(&path));
            search.load_listed(&database, &available, &cache);
            search.load_cached(&cache);
        } else {
            transaction.files.iter().for_each(|path| search.load_given(path));
        }
        let facts = Facts {
            installed: database.installed(),
            database: &database,
            available: &available,
            files: &search.found,
            line: line.as_ref(),
            upgrade: line.as_ref().is_none_or(|line| line.sysupgrade),
        };
        let mut no_extract = NoExtract::new(&configuration, database.alpm());
        let arriving = search.found.iter();
        let arriving =
            arriving.map(|found| (found, facts.describe(found, no_extract.files(&found.file))));
        // A package that contains no targets can still remove a package that contains a module's
        // source.
        let arriving = arriving.filter(|(found, package)| {
            found.is_given || !found.paths.is_empty() || !package.removes.is_empty()
        });
        Ok(Self {
            packages: arriving.map(|(_, package)| package).collect(),
            unresolved: search.missing.iter().map(|path| lossy(path)).collect(),
            toolchain: toolchain::replaced(
                &database,
                search.found.iter().map(|found| &found.file),
                &available,
                line.as_ref(),
            ),
            upgrade: facts.upgrade,
            command: words.iter().map(|word| lossy(word.as_bytes())).collect(),
        })
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the files that a command line names. pacman stores the file of a URL in a cache
/// directory, under the last part of the URL.
fn named_files(line: &CommandLine, cache: &Cache) -> Vec<PathBuf> {
    let path = |operand: &OsString| match operand.to_string_lossy().split_once("://") {
        Some((_, address)) => cache.get(address.rsplit('/').next()?).map(Path::to_owned),
        None => line.resolve(operand),
    };
    if line.upgrade { line.operands.iter().filter_map(path).collect() } else { Vec::new() }
}

/// A package file that may arrive.
struct Found<'a> {
    file: PackageFile<'a>,
    /// The targets that the file contains.
    paths: BTreeSet<Vec<u8>>,
    /// Whether the caller of alpm-query named the file.
    is_given: bool,
}

/// A search for the package files that contain the targets.
struct Search<'a> {
    alpm: &'a Alpm,
    targets: &'a BTreeSet<Vec<u8>>,
    /// The targets that no file in `found` contains.
    missing: BTreeSet<Vec<u8>>,
    found: Vec<Found<'a>>,
    /// The files that have been read.
    tried: BTreeSet<PathBuf>,
    start: Instant,
}

impl<'a> Search<'a> {
    fn new(alpm: &'a Alpm, targets: &'a BTreeSet<Vec<u8>>) -> Self {
        let (missing, found, tried) = (targets.clone(), Vec::new(), BTreeSet::new());
        Self { alpm, targets, missing, found, tried, start: Instant::now() }
    }

    /// Reads a file. Returns `None` if it has been read before or is not a package.
    fn load(&mut self, path: &Path) -> Option<PackageFile<'a>> {
        self.tried.insert(path.to_owned()).then(|| PackageFile::load(self.alpm, path)).flatten()
    }

    fn add(&mut self, file: PackageFile<'a>, paths: BTreeSet<Vec<u8>>, is_given: bool) {
        self.missing.retain(|path| !paths.contains(path));
        self.found.push(Found { file, paths, is_given });
    }

    /// Adds a file that the caller named. Records the path as missing if the file cannot be read.
    fn load_given(&mut self, path: &Path) {
        if self.tried.contains(path) {
            return;
        }
        if let Some(file) = self.load(path) {
            let paths = file.triggers();
            self.add(file, paths, true);
        } else {
            self.missing.insert(path.as_os_str().as_bytes().to_vec());
        }
    }

    /// Adds a file that pacman's command line names.
    fn load_named(&mut self, path: &Path) {
        if let Some(file) = self.load(path) {
            let paths = file.contained(self.targets);
            self.add(file, paths, false);
        }
    }

    /// Adds a package file if it contains a missing target. Does nothing if no target is missing,
    /// or if the search has taken too long.
    fn load_if_needed(&mut self, path: &Path) {
        if self.missing.is_empty() || self.start.elapsed() > SEARCH_LIMIT {
            return;
        }
        let Some(file) = self.load(path) else { return };
        let paths = file.contained(self.targets);
        if !paths.is_disjoint(&self.missing) {
            self.add(file, paths, false);
        }
    }

    /// Adds files in the cache directories that contain missing targets.
    fn load_cached(&mut self, cache: &Cache) {
        if !self.missing.is_empty() {
            cache.newest_first().into_iter().for_each(|path| self.load_if_needed(path));
        }
    }

    /// Adds the downloaded packages of the sync databases whose files contain missing targets.
    ///
    /// Reads packages whose version is not installed before the others. Within each group, packages
    /// whose name or installed files suggest a kernel, headers or a module come first.
    fn load_listed(&mut self, database: &Database, available: &[Listed<'_>], cache: &Cache) {
        let cached = available.iter().filter_map(|package| {
            let name = readable(|| package.package.filename()).flatten()?;
            Some((package, database.installed_package(package.name), cache.get(name)?))
        });
        let (same, new): (Vec<_>, Vec<_>) = cached.partition(|(package, installed, _)| {
            installed.is_some_and(|installed| installed.version == package.version)
        });
        for packages in [new, same] {
            let (likely, mut others): (Vec<_>, Vec<_>) =
                packages.into_iter().partition(|(package, ..)| may_concern_dkms(package.name));
            likely.into_iter().for_each(|(.., path)| self.load_if_needed(path));
            if self.missing.is_empty() {
                return;
            }
            others.sort_by_cached_key(|(_, installed, _)| !installed.is_some_and(owns_modules));
            others.into_iter().for_each(|(.., path)| self.load_if_needed(path));
        }
    }
}

/// Returns true if an installed package owns files in the directories of kernels or sources.
fn owns_modules(installed: Listed<'_>) -> bool {
    let files = installed.package.files();
    ["usr/lib/modules/", "usr/src/"].into_iter().any(|path| files.contains(path).is_some())
}

/// The facts that describe arriving packages.
struct Facts<'a> {
    database: &'a Database,
    installed: Vec<Listed<'a>>,
    available: &'a [Listed<'a>],
    files: &'a [Found<'a>],
    line: Option<&'a CommandLine>,
    upgrade: bool,
}

impl Facts<'_> {
    fn describe(&self, found: &Found<'_>, not_extracted: Vec<String>) -> ArrivingPackage {
        let file = &found.file;
        let installed = self.database.installed_package(&file.name);
        ArrivingPackage {
            name: file.name.clone(),
            version: file.version.clone(),
            file: file.path.clone(),
            installed: installed.map(|package| package.version.to_owned()),
            unchanged: installed.is_some() && file.is_installed(self.database.alpm()),
            foreign: !self.available.iter().any(|package| package.name == file.name),
            removes: removed_by(&file.package, &self.installed, self.upgrade),
            bound: self.bound_to(&file.package),
            size: u64::try_from(file.package.isize()).unwrap_or(0),
            objects: file.objects(),
            modules: file.modules(),
            outside: file.has_files_outside(),
            not_extracted,
            paths: found.paths.iter().map(|path| lossy(path)).collect(),
        }
    }

    /// Returns the packages that depend on exactly this version of `package`: among the other
    /// package files, and among the packages in the sync databases that are installed or named on
    /// the command line.
    fn bound_to(&self, package: &Pkg) -> BTreeSet<String> {
        let could_arrive = |listed: &&Listed<'_>| {
            self.database.installed_package(listed.name).is_some()
                || self.line.is_some_and(|line| toolchain::names(line, listed.name))
        };
        let listed = self.available.iter().filter(could_arrive);
        let listed = listed.map(|listed| (listed.name, listed.package.as_ref()));
        let files =
            self.files.iter().map(|found| (found.file.name.as_str(), found.file.package.pkg()));
        let bound = listed.chain(files).filter(|(_, dependent)| is_bound_to(dependent, package));
        bound.map(|(name, _)| name.to_owned()).collect()
    }
}
