//! Asks alpm-query which packages own sources and kernels.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fmt, io};

use dkms_engine::names::KernelRelease;
use dkms_engine::os::process::{Environment, Program, RunError};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The time limit of alpm-query. Reading a database of two thousand packages from a slow disk
/// takes seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InstalledPackage {
    /// The name, e.g. `zfs-dkms`.
    pub name: String,
    /// The full version, e.g. `2.4.4-1`.
    pub version: String,
}

impl fmt::Display for InstalledPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// The answer of alpm-query for one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct KernelPackages {
    kernel: Option<InstalledPackage>,
    headers: Option<InstalledPackage>,
    headers_package: Option<String>,
}

/// The source directories and kernels to look up.
#[derive(Debug, Clone, Default)]
pub struct PackageQuery {
    /// The names of the directories in `/usr/src` to look up.
    pub sources: BTreeSet<String>,
    /// The releases of the kernels to look up.
    pub kernels: BTreeSet<KernelRelease>,
    /// The names of packages to look up in the sync databases.
    pub available: BTreeSet<String>,
    /// Other paths to look up the owners of, without a leading `/`.
    pub paths: BTreeSet<String>,
}

impl PackageQuery {
    /// Returns the input for `alpm-query batch`. Skips source directories with a newline in the
    /// name.
    #[must_use]
    pub fn lines(&self) -> String {
        let sources = self.sources.iter().filter(|dir| !dir.contains('\n'));
        let owners = sources.map(|dir| format!("owner usr/src/{dir}/dkms.conf\n"));
        let kernels = self.kernels.iter().map(|kernel| format!("kernel {kernel}\n"));
        let available = self.available.iter().map(|name| format!("available {name}\n"));
        let paths = self.paths.iter().filter(|path| !path.contains('\n'));
        let paths = paths.map(|path| format!("owner {path}\n"));
        owners.chain(kernels).chain(available).chain(paths).collect()
    }
}

/// The packages that own sources and kernels, from the answer of alpm-query. Empty by default, for
/// use when alpm-query fails.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Packages {
    owners: BTreeMap<String, Option<InstalledPackage>>,
    kernels: BTreeMap<KernelRelease, KernelPackages>,
    #[serde(default)]
    available: BTreeMap<String, Option<String>>,
}

/// The reason why alpm-query did not answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The directory of this program and of alpm-query is unknown.
    #[error("cannot find this program's own directory: {0}")]
    NoPlace(#[from] io::Error),
    /// alpm-query cannot be started.
    #[error(transparent)]
    NotRun(#[from] RunError),
    /// alpm-query failed or timed out.
    #[error("alpm-query: {0}")]
    Failed(String),
    /// The output of alpm-query is malformed.
    #[error("alpm-query: malformed output: {0}")]
    Malformed(String),
}

/// Returns the path of alpm-query, which is installed in the directory of this program.
///
/// # Errors
/// [`io::Error`] if this program's own path is unknown.
pub fn beside_us() -> io::Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("alpm-query"))
}

/// Runs alpm-query, whose path is `program`, on the packages of the machine at `root`. For an empty
/// query, returns an empty answer without running alpm-query.
///
/// # Errors
/// [`QueryError`] if alpm-query cannot be run or does not answer. Callers then continue without
/// package names. A transaction that upgrades one of libalpm's many libraries can keep alpm-query
/// from starting.
pub fn ask(program: &Path, root: &Path, query: &PackageQuery) -> Result<Packages, QueryError> {
    let lines = query.lines();
    if lines.is_empty() {
        return Ok(Packages::default());
    }
    call(program, root, ["batch"], lines)
}

/// Runs alpm-query, whose path is `program`, on the packages of the machine at `root`, and parses
/// its answer.
///
/// # Errors
/// [`QueryError`] if alpm-query cannot be run or does not answer.
pub fn call<T: DeserializeOwned>(
    program: &Path,
    root: &Path,
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
    input: String,
) -> Result<T, QueryError> {
    let ended = Program::new(program, &Environment::fixed())
        .arg("--root")
        .arg(root)
        .args(words.into_iter().map(|word| word.as_ref().to_owned()))
        .stdin(input)
        .deadline(TIMEOUT)
        .run()?;
    if !ended.success() {
        let complaint = ended.complaint();
        let last = complaint.lines().last().unwrap_or_default();
        return Err(QueryError::Failed(format!("{}: {last}", ended.how)));
    }
    parse(&ended.output)
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, QueryError> {
    serde_json::from_slice(answer).map_err(|why| QueryError::Malformed(why.to_string()))
}

impl Packages {
    /// Parses the output of alpm-query.
    ///
    /// # Errors
    /// [`QueryError::Malformed`] if `answer` is not the expected JSON.
    pub fn read(answer: &[u8]) -> Result<Self, QueryError> {
        parse(answer)
    }

    /// Returns the package that owns the `dkms.conf` in the directory `dir` of `/usr/src`.
    #[must_use]
    pub fn of_source(&self, dir: &str) -> Option<&InstalledPackage> {
        self.owners.get(&format!("usr/src/{dir}/dkms.conf"))?.as_ref()
    }

    /// Returns the package that owns a queried path.
    #[must_use]
    pub fn of_path(&self, path: &str) -> Option<&InstalledPackage> {
        self.owners.get(path)?.as_ref()
    }

    /// Returns the package that owns a kernel.
    #[must_use]
    pub fn of_kernel(&self, kernel: &KernelRelease) -> Option<&InstalledPackage> {
        self.kernels.get(kernel)?.kernel.as_ref()
    }

    /// Returns the package that owns a kernel's headers.
    #[must_use]
    pub fn of_headers(&self, kernel: &KernelRelease) -> Option<&InstalledPackage> {
        self.kernels.get(kernel)?.headers.as_ref()
    }

    /// Returns the name of the package that contains a kernel's headers. The package need not be
    /// installed.
    #[must_use]
    pub fn headers_package(&self, kernel: &KernelRelease) -> Option<&str> {
        self.kernels.get(kernel)?.headers_package.as_deref()
    }

    /// Returns the version of a queried package in the sync databases; `None` if the databases do
    /// not contain the package.
    #[must_use]
    pub fn available(&self, name: &str) -> Option<&str> {
        self.available.get(name)?.as_deref()
    }

    /// Returns the names of the queried directories in `/usr/src`.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let paths = self.owners.keys();
        paths.filter_map(|path| path.strip_prefix("usr/src/")?.strip_suffix("/dkms.conf"))
    }

    /// Returns the queried kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &KernelRelease> {
        self.kernels.keys()
    }

    /// Returns the queried kernels that no package owns.
    pub fn unowned(&self) -> impl Iterator<Item = &KernelRelease> {
        self.kernels.iter().filter(|(_, of)| of.kernel.is_none()).map(|(kernel, _)| kernel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &str) -> KernelRelease {
        text.parse().expect("a release")
    }

    #[test]
    fn writes_one_line_per_lookup() {
        let query = PackageQuery {
            sources: ["zfs-2.4.4", "odd\nname-1"].map(str::to_owned).into(),
            kernels: [release("7.2.13-arch1-1")].into(),
            available: ["zfs-dkms".to_owned()].into(),
            paths: ["usr/src/a", "odd\npath"].map(str::to_owned).into(),
        };
        assert_eq!(
            query.lines(),
            "owner usr/src/zfs-2.4.4/dkms.conf\nkernel 7.2.13-arch1-1\navailable zfs-dkms\n\
             owner usr/src/a\n"
        );
    }

    #[test]
    fn reads_an_answer() {
        let packages = Packages::read(
            br#"{"owners": {"usr/src/zfs-2.4.4/dkms.conf": {"name": "zfs-dkms", "version": "2.4.4-1"},
                            "usr/src/own-1/dkms.conf": null},
                 "kernels": {"7.2.13-arch1-1": {"kernel": {"name": "linux", "version": "7.2.13.arch1-1"},
                                                "headers": null, "headers_package": "linux-headers"},
                             "7.2.12-arch1-1": {"kernel": null, "headers": null, "headers_package": null}}}"#,
        )
        .expect("an answer");
        let (new, old) = (release("7.2.13-arch1-1"), release("7.2.12-arch1-1"));
        assert_eq!(
            packages.of_source("zfs-2.4.4").map(InstalledPackage::to_string).as_deref(),
            Some("zfs-dkms 2.4.4-1")
        );
        assert_eq!(packages.of_source("own-1"), None);
        assert_eq!(packages.headers_package(&new), Some("linux-headers"));
        assert_eq!(packages.of_headers(&new), None);
        assert_eq!(packages.unowned().collect::<Vec<_>>(), [&old]);
    }

    #[test]
    fn rejects_malformed_answers() {
        for answer in ["", "null", "[]", "{\"owners\": 3}", "error while loading shared libraries"]
        {
            assert!(Packages::read(answer.as_bytes()).is_err(), "{answer}");
        }
        assert!(Packages::read(br#"{"owners": {}, "kernels": {"../etc": {}}}"#).is_err());
    }

    #[test]
    fn answers_are_empty_by_default() {
        assert_eq!(Packages::default().of_source("zfs-2.4.4"), None);
        assert_eq!(Packages::default().unowned().next(), None);
    }

    /// Sends a query to a fake alpm-query, the shell script `script`.
    fn ask_script(script: &str) -> Result<Packages, QueryError> {
        let root = testroot::TestRoot::new();
        let program = root.program("alpm-query", script);
        let query =
            PackageQuery { sources: ["zfs-2.4.4".to_owned()].into(), ..PackageQuery::default() };
        ask(&program, root.path(), &query)
    }

    #[test]
    fn passes_the_query_and_reads_the_answer() {
        let packages = ask_script(
            r#"read -r kind path
               echo "{\"owners\": {\"$path\": {\"name\": \"$3\", \"version\": \"1\"}}, \"kernels\": {}}""#,
        )
        .expect("an answer");
        assert_eq!(packages.of_source("zfs-2.4.4").map(|it| it.name.as_str()), Some("batch"));
    }

    #[test]
    fn reports_why_there_is_no_answer() {
        let broken =
            ask_script("echo 'error while loading shared libraries: libalpm.so.16' >&2; exit 127");
        let missing = ask(
            Path::new("/no/alpm-query"),
            Path::new("/"),
            &PackageQuery { kernels: [release("7.2")].into(), ..PackageQuery::default() },
        );
        let malformed = ask_script("echo hello");
        let errors = [broken, malformed, missing].map(|it| it.expect_err("no answer").to_string());
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn does_not_start_the_program_for_an_empty_query() {
        let missing = Path::new("/no/alpm-query");
        assert!(ask(missing, Path::new("/"), &PackageQuery::default()).is_ok());
    }
}
