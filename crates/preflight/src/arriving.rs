//! Asks alpm-query which package files a transaction installs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use alpm_hook::package_query::{QueryError, call};
use dkms_engine::machine::Target;
use dkms_engine::names::KernelRelease;
use serde::{Deserialize, Serialize};

/// The packages that a transaction installs. The default is a transaction that installs
/// no packages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arriving {
    /// The packages whose files have been found.
    pub packages: Vec<ArrivingPackage>,
    /// The targets that no known package file contains, and the given files that cannot be read.
    pub unresolved: Vec<String>,
    /// The parts of the toolchain that the transaction replaces.
    pub toolchain: Vec<ReplacedTool>,
    /// Whether the transaction upgrades all packages; also true if pacman's command line is
    /// unknown.
    pub upgrade: bool,
    /// The words of pacman's command line; empty if unknown.
    pub command: Vec<String>,
}

/// A package that a transaction installs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivingPackage {
    /// The name, e.g. `zfs-dkms`.
    pub name: String,
    /// The full version, e.g. `2.4.4-1`.
    pub version: String,
    /// The absolute path of the package file.
    pub file: PathBuf,
    /// The installed version; `None` if the package is not installed.
    pub installed: Option<String>,
    /// Whether no sync database lists the package, as for packages from the AUR.
    pub foreign: bool,
    /// Whether exactly this package is already installed, so that the transaction changes none of
    /// its files.
    pub unchanged: bool,
    /// The names of the installed packages that this package removes.
    pub removes: BTreeSet<String>,
    /// The names of the packages that depend on exactly this version and that the transaction could
    /// install.
    pub bound: BTreeSet<String>,
    /// The installed size in bytes.
    pub size: u64,
    /// Up to nine kernel objects of each kernel, as paths without a leading `/`.
    pub objects: Vec<String>,
    /// The names of all kernel modules of the kernels in this package, with `_` for `-`.
    pub modules: BTreeSet<String>,
    /// Whether the package contains not only a module's source, but also files elsewhere that the
    /// build may read. A trial does not contain those files.
    pub outside: bool,
    /// The files below `usr/src` and `usr/lib/modules` that pacman does not extract (`NoExtract` in
    /// pacman.conf(5)).
    pub not_extracted: Vec<String>,
    /// The targets that this package contains.
    pub paths: BTreeSet<String>,
}

/// A package of the toolchain that a transaction replaces with another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedTool {
    /// The name, e.g. `gcc`.
    pub name: String,
    /// The arriving version.
    pub version: String,
    /// The installed version.
    pub installed: String,
}

/// Runs alpm-query, whose path is `program`, on the packages of the machine at `root`. `databases`
/// is the directory of pacman's databases; `None` for the configured one. `pacman` is the process
/// that runs the transaction, and `targets` are the paths that pacman passed to the hook.
///
/// With `files`, which are absolute paths, alpm-query describes these package files. `targets` is
/// then ignored: the targets are the paths in the package files that would trigger the hooks. If
/// neither files nor targets are given, returns an empty answer without running alpm-query.
///
/// # Errors
/// [`QueryError`] if alpm-query cannot be run or does not answer.
pub fn ask(
    program: &Path,
    root: &Path,
    databases: Option<&Path>,
    pacman: Option<u32>,
    files: &[PathBuf],
    targets: &BTreeSet<String>,
) -> Result<Arriving, QueryError> {
    if files.is_empty() && targets.is_empty() {
        return Ok(Arriving::default());
    }
    let mut words: Vec<OsString> = Vec::new();
    if let Some(databases) = databases {
        words.extend(["--dbpath".into(), databases.into()]);
    }
    words.push("arriving".into());
    if let Some(pacman) = pacman {
        words.extend(["--pacman".into(), pacman.to_string().into()]);
    }
    words.extend(files.iter().map(OsString::from));
    let lines = if files.is_empty() {
        targets.iter().map(|it| format!("{it}\n")).collect()
    } else {
        String::new()
    };
    call(program, root, words, lines)
}

impl ArrivingPackage {
    /// Returns true if this package contains a kernel and is not installed.
    pub(crate) fn is_new_kernel(&self) -> bool {
        let is_kernel = |path: &String| matches!(Target::parse(path), Some(Target::Kernel(_)));
        self.installed.is_none() && self.paths.iter().any(is_kernel)
    }
}

impl Arriving {
    /// Returns true if the transaction replaces a compiler with one of another major version. The
    /// new compiler may produce different objects or fail.
    #[must_use]
    pub fn replaces_compiler(&self) -> bool {
        let is_compiler = |tool: &&ReplacedTool| ["gcc", "clang"].contains(&tool.name.as_str());
        let mut compilers = self.toolchain.iter().filter(is_compiler);
        compilers.any(|tool| major(&tool.version) != major(&tool.installed))
    }

    /// Returns the targets that the packages contain.
    #[must_use]
    pub fn targets(&self) -> BTreeSet<String> {
        self.packages.iter().flat_map(|package| package.paths.iter().cloned()).collect()
    }

    /// Returns the names of the source directories whose packages also contain files elsewhere that
    /// builds may read. A trial does not contain those files.
    pub(crate) fn sources_with_files_outside(&self) -> impl Iterator<Item = String> {
        let packages = self.packages.iter().filter(|package| package.outside);
        packages.flat_map(|package| package.paths.iter().filter_map(|path| source_of(path)))
    }

    /// Returns the names of all kernel modules of arriving kernels, with `_` for `-`.
    pub(crate) fn modules(&self) -> BTreeSet<String> {
        self.packages.iter().flat_map(|package| package.modules.iter().cloned()).collect()
    }

    /// Returns the names of the packages to leave out of the transaction so that it does not change
    /// these kernels: the packages with files of the kernels, and every package that depends on an
    /// exact version of one of them.
    #[must_use]
    pub fn packages_of(&self, kernels: &BTreeSet<&KernelRelease>) -> BTreeSet<String> {
        let is_of_kernel = |path: &String| {
            let inner = path.strip_prefix("usr/lib/modules/").and_then(|it| it.split_once('/'));
            inner.is_some_and(|(release, _)| kernels.iter().any(|it| it.as_str() == release))
        };
        let packages = self.packages.iter().filter(|it| it.paths.iter().any(is_of_kernel));
        let names = packages.flat_map(|it| it.bound.iter().chain([&it.name]));
        names.cloned().collect()
    }
}

/// Returns the name of the source directory of a target; `None` if the target belongs to no source.
pub(crate) fn source_of(target: &str) -> Option<String> {
    match Target::parse(target)? {
        Target::Source(dir) => Some(dir),
        Target::Kernel(_) | Target::Headers(_) => None,
    }
}

/// Returns the part of a version before the first dot, without the epoch.
fn major(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_epoch, version)| version);
    version.split(['.', '-', '+']).next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;

    /// A script that prints an answer with one package. The answer's `command` holds the script's
    /// arguments and input.
    const ANSWER: &str = r#"
        command=$(printf '"%s",' "$@" $(cat))
        cat <<END
        {"packages": [{"name": "linux", "version": "7.2-1", "file": "/c/linux.pkg.tar.zst",
          "installed": null, "foreign": false, "unchanged": false, "removes": ["linux-old"], "bound": ["nvidia"],
          "size": 4711, "modules": ["a"], "outside": false,
          "not_extracted": ["usr/lib/modules/7.2/build/a.h"], "objects": ["usr/lib/modules/7.2/kernel/a.ko.zst"],
          "paths": ["usr/lib/modules/7.2/modules.order"]}],
         "unresolved": ["usr/src/a-1/dkms.conf"],
         "toolchain": [{"name": "gcc", "version": "16.1-1", "installed": "15.2-1"}],
         "upgrade": true, "command": [${command%,}]}
END"#;

    fn ask_script(
        script: &str,
        pacman: Option<u32>,
        files: &[&str],
        targets: &[&str],
    ) -> Result<Arriving, QueryError> {
        let root = TestRoot::new();
        let program = root.program("alpm-query", script);
        let files: Vec<_> = files.iter().map(PathBuf::from).collect();
        let targets = targets.iter().map(|&target| target.to_owned()).collect();
        ask(&program, Path::new("/r"), Some(Path::new("/db")), pacman, &files, &targets)
    }

    #[test]
    fn reads_an_answer() {
        let strings = |text: &str| [text.to_owned()].into();
        let expected = Arriving {
            packages: vec![ArrivingPackage {
                name: "linux".into(),
                version: "7.2-1".into(),
                file: "/c/linux.pkg.tar.zst".into(),
                installed: None,
                foreign: false,
                unchanged: false,
                removes: strings("linux-old"),
                bound: strings("nvidia"),
                size: 4711,
                objects: vec!["usr/lib/modules/7.2/kernel/a.ko.zst".into()],
                modules: strings("a"),
                outside: false,
                not_extracted: vec!["usr/lib/modules/7.2/build/a.h".into()],
                paths: strings("usr/lib/modules/7.2/modules.order"),
            }],
            unresolved: vec!["usr/src/a-1/dkms.conf".into()],
            toolchain: vec![ReplacedTool {
                name: "gcc".into(),
                version: "16.1-1".into(),
                installed: "15.2-1".into(),
            }],
            upgrade: true,
            command: ["--root", "/r", "--dbpath", "/db", "arriving", "usr/a"]
                .map(str::to_owned)
                .into(),
        };
        assert_eq!(ask_script(ANSWER, None, &[], &["usr/a"]).expect("an answer"), expected);
    }

    #[rstest]
    #[case::hook(Some(12), &[], &["usr/b", "usr/a"], "arriving --pacman 12 usr/a usr/b")]
    #[case::files(None, &["/x", "/y"], &["usr/a"], "arriving /x /y")]
    fn passes_the_question(
        #[case] pacman: Option<u32>,
        #[case] files: &[&str],
        #[case] targets: &[&str],
        #[case] expected: &str,
    ) {
        let answer = ask_script(ANSWER, pacman, files, targets).expect("an answer");
        assert_eq!(answer.command[4..].join(" "), expected);
    }

    #[test]
    fn reports_why_there_is_no_answer() {
        let errors = ["echo 'no database' >&2; exit 1", "echo '{}'"]
            .map(|script| ask_script(script, None, &[], &["usr/a"]).expect_err("no answer"));
        assert_eq!(errors[0].to_string(), "alpm-query: exit status 1: no database");
        assert!(matches!(errors[1], QueryError::Malformed(_)), "{:?}", errors[1]);
    }

    #[test]
    fn does_not_start_the_program_without_targets() {
        let answer = ask_script("exit 1", Some(1), &[], &[]).expect("an answer");
        assert_eq!(answer, Arriving::default());
    }

    #[rstest]
    #[case::minor("gcc", "15.2.1-1", "15.1.0-3", false)]
    #[case::major("gcc", "16.1.0-1", "15.2.0-1", true)]
    #[case::snapshot("clang", "22-1", "22.1-1", false)]
    #[case::epoch("clang", "1:22.1-1", "22.0-1", false)]
    #[case::no_compiler("glibc", "3.0-1", "2.42-1", false)]
    fn knows_another_compiler(
        #[case] name: &str,
        #[case] version: &str,
        #[case] installed: &str,
        #[case] expected: bool,
    ) {
        let [name, version, installed] = [name, version, installed].map(str::to_owned);
        let toolchain = vec![ReplacedTool { name, version, installed }];
        assert_eq!(Arriving { toolchain, ..Arriving::default() }.replaces_compiler(), expected);
    }

    #[test]
    fn names_the_packages_of_kernels() {
        let answer = ask_script(ANSWER, None, &[], &["usr/a"]).expect("an answer");
        let [this, other] =
            ["7.2", "7.2-rt"].map(|it| it.parse::<KernelRelease>().expect("a release"));
        let expected: BTreeSet<_> = ["linux", "nvidia"].map(str::to_owned).into();
        assert_eq!(answer.packages_of(&[&this, &other].into()), expected);
        assert_eq!(answer.packages_of(&[&other].into()), BTreeSet::new());
    }
}
