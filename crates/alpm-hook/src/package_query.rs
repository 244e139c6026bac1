//! Which packages are behind the paths, as alpm-query answers it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fmt, io};

use dkms_engine::names::KernelRelease;
use dkms_engine::os::process::{Environment, Program, RunError};
use serde::Deserialize;

/// How long an answer may take. Reading a database of two thousand packages from a slow disk
/// takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A package that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Package {
    /// Its name, e.g. `zfs-dkms`.
    pub name: String,
    /// Its full version, e.g. `2.4.4-1`.
    pub version: String,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// The packages behind one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct KernelPackages {
    kernel: Option<Package>,
    headers: Option<Package>,
    headers_package: Option<String>,
}

/// What is asked: source directories and kernels.
#[derive(Debug, Clone, Default)]
pub struct Questions {
    /// Names of directories of `/usr/src`.
    pub sources: BTreeSet<String>,
    /// Kernel releases.
    pub kernels: BTreeSet<KernelRelease>,
}

impl Questions {
    /// The questions as alpm-query's `batch` reads them.
    #[must_use]
    pub fn lines(&self) -> String {
        let sources = self.sources.iter().filter(|dir| !dir.contains('\n'));
        let owners = sources.map(|dir| format!("owner usr/src/{dir}/dkms.conf\n"));
        owners.chain(self.kernels.iter().map(|kernel| format!("kernel {kernel}\n"))).collect()
    }
}

/// What is known of the packages; nothing at all if alpm-query did not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Packages {
    owners: BTreeMap<String, Option<Package>>,
    kernels: BTreeMap<KernelRelease, KernelPackages>,
}

/// Why alpm-query gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// It is not known where it is.
    #[error("this program's own directory is not known: {0}")]
    NoPlace(#[from] io::Error),
    /// It could not be run.
    #[error(transparent)]
    NotRun(#[from] RunError),
    /// It ended with a complaint, or was not ready in time.
    #[error("alpm-query: {0}")]
    Failed(String),
    /// It wrote something else than an answer.
    #[error("alpm-query: not an answer: {0}")]
    Nonsense(String),
}

/// The alpm-query that is installed beside this program.
///
/// # Errors
/// If this program's own path is not known.
pub fn beside_us() -> io::Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("alpm-query"))
}

/// Asks `program` about the machine at `root`. It is not asked if there is no question.
///
/// # Errors
/// [`NoAnswer`]. libalpm brings many libraries, and a transaction that upgrades one of them may
/// keep alpm-query from starting: go on without names then.
pub fn ask(program: &Path, root: &Path, questions: &Questions) -> Result<Packages, NoAnswer> {
    let lines = questions.lines();
    if lines.is_empty() {
        return Ok(Packages::default());
    }
    let ended = Program::new(program, &Environment::fixed())
        .arg("--root")
        .arg(root)
        .arg("batch")
        .stdin(lines)
        .deadline(PATIENCE)
        .run()?;
    if !ended.success() {
        let complaint = ended.complaint();
        let last = complaint.lines().last().unwrap_or_default();
        return Err(NoAnswer::Failed(format!("{}: {last}", ended.how)));
    }
    Packages::read(&ended.output)
}

impl Packages {
    /// Reads alpm-query's answer.
    ///
    /// # Errors
    /// If it is not what alpm-query writes.
    pub fn read(answer: &[u8]) -> Result<Self, NoAnswer> {
        serde_json::from_slice(answer).map_err(|why| NoAnswer::Nonsense(why.to_string()))
    }

    /// The package that a directory of `/usr/src` is from.
    #[must_use]
    pub fn of_source(&self, dir: &str) -> Option<&Package> {
        self.owners.get(&format!("usr/src/{dir}/dkms.conf"))?.as_ref()
    }

    /// The package that a kernel is from.
    #[must_use]
    pub fn of_kernel(&self, kernel: &KernelRelease) -> Option<&Package> {
        self.kernels.get(kernel)?.kernel.as_ref()
    }

    /// The package that a kernel's headers are from.
    #[must_use]
    pub fn of_headers(&self, kernel: &KernelRelease) -> Option<&Package> {
        self.kernels.get(kernel)?.headers.as_ref()
    }

    /// The package to install for a kernel's headers.
    #[must_use]
    pub fn headers_package(&self, kernel: &KernelRelease) -> Option<&str> {
        self.kernels.get(kernel)?.headers_package.as_deref()
    }

    /// The kernels that were asked about and that no package owns.
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
    fn asks_in_lines() {
        let questions = Questions {
            sources: ["zfs-2.4.4", "odd\nname-1"].map(str::to_owned).into(),
            kernels: [release("7.2.13-arch1-1")].into(),
        };
        assert_eq!(questions.lines(), "owner usr/src/zfs-2.4.4/dkms.conf\nkernel 7.2.13-arch1-1\n");
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
            packages.of_source("zfs-2.4.4").map(Package::to_string).as_deref(),
            Some("zfs-dkms 2.4.4-1")
        );
        assert_eq!(packages.of_source("own-1"), None);
        assert_eq!(packages.headers_package(&new), Some("linux-headers"));
        assert_eq!(packages.of_headers(&new), None);
        assert_eq!(packages.unowned().collect::<Vec<_>>(), [&old]);
    }

    #[test]
    fn refuses_nonsense() {
        for answer in ["", "null", "[]", "{\"owners\": 3}", "error while loading shared libraries"]
        {
            assert!(Packages::read(answer.as_bytes()).is_err(), "{answer}");
        }
        assert!(Packages::read(br#"{"owners": {}, "kernels": {"../etc": {}}}"#).is_err());
    }

    #[test]
    fn knows_nothing_without_an_answer() {
        assert_eq!(Packages::default().of_source("zfs-2.4.4"), None);
        assert_eq!(Packages::default().unowned().next(), None);
    }

    /// Asks a program that does what `script` says.
    fn asked(script: &str) -> Result<Packages, NoAnswer> {
        let root = testroot::TestRoot::new();
        let program = root.program("alpm-query", script);
        let questions =
            Questions { sources: ["zfs-2.4.4".to_owned()].into(), ..Questions::default() };
        ask(&program, root.path(), &questions)
    }

    #[test]
    fn hears_a_program() {
        let packages = asked(
            r#"read -r kind path
               echo "{\"owners\": {\"$path\": {\"name\": \"$3\", \"version\": \"1\"}}, \"kernels\": {}}""#,
        )
        .expect("an answer");
        assert_eq!(packages.of_source("zfs-2.4.4").map(|it| it.name.as_str()), Some("batch"));
    }

    #[test]
    fn says_why_there_is_no_answer() {
        let broken =
            asked("echo 'error while loading shared libraries: libalpm.so.16' >&2; exit 127");
        let missing = ask(
            Path::new("/no/alpm-query"),
            Path::new("/"),
            &Questions { kernels: [release("7.2")].into(), ..Questions::default() },
        );
        let said =
            [broken, asked("echo hello"), missing].map(|it| it.expect_err("no answer").to_string());
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn asks_nobody_about_nothing() {
        let nobody = Path::new("/no/alpm-query");
        assert!(ask(nobody, Path::new("/"), &Questions::default()).is_ok());
    }
}
