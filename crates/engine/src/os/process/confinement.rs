//! Confines child processes: kills them when this process ends, and gives them private mounts.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Environment, How, Program, Stop, Tools, is_program};

/// The confinement that this machine supports, shared by all clones.
///
/// The first use probes the machine, because a container or an unprivileged user may lack the
/// necessary permissions.
#[derive(Debug, Clone, Default)]
pub struct Confinement(Arc<OnceLock<Support>>);

/// A level of confinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Support {
    bond: Bond,
    own_mounts: bool,
}

impl Support {
    /// The levels to probe, from the strongest to the weakest.
    const LEVELS: [Self; 3] = [
        Self { bond: Bond::Namespace, own_mounts: true },
        Self { bond: Bond::Namespace, own_mounts: false },
        Self { bond: Bond::DeathSignal, own_mounts: false },
    ];

    /// The level that every machine supports.
    const NONE: Self = Self { bond: Bond::None, own_mounts: false };

    /// Returns true if a program can be run with this confinement, and if its exit status reaches
    /// this process.
    fn works(self, tools: &Tools) -> bool {
        let confinement = Confinement::known(self.bond);
        let tools = Tools { confinement, stop: Stop::default(), ..tools.clone() };
        let environment = Environment::fixed();
        let mut program = Program::new(&tools.bash, &environment)
            .args(["-c", "exit 42"])
            .confined(&tools)
            .deadline(Duration::from_secs(10));
        // Any directory will do.
        let dir = tools.confine.parent().map(|dir| (dir.to_owned(), dir.to_owned()));
        program.mounts = self.own_mounts.then(|| OwnMounts { dir, ..OwnMounts::default() });
        program.run().is_ok_and(|ended| ended.how == How::Exited(42))
    }
}

/// The mechanism that kills a child when this process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// A pid namespace. When this process ends, the kernel kills the first process of the
    /// namespace, and then all other processes in the namespace.
    Namespace,
    /// A parent death signal (`PR_SET_PDEATHSIG`). Only the child is killed; its own children may
    /// survive.
    DeathSignal,
    /// No mechanism: the child and its descendants may survive.
    None,
}

/// The private mounts of one child and its descendants, in addition to their private /proc.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OwnMounts {
    /// The directory to mount, and the existing directory over which to mount it.
    pub(crate) dir: Option<(PathBuf, PathBuf)>,
    /// The child's own directories for temporary files.
    pub(crate) temporary: Vec<OwnTemporary>,
    /// The files of /proc that appear empty.
    pub(crate) masked: Vec<PathBuf>,
}

/// A directory for temporary files that belongs to one child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnTemporary {
    /// The machine's directory, such as `/tmp`.
    pub(crate) at: PathBuf,
    /// The child's directory, which is mounted over `at`.
    pub(crate) real: PathBuf,
    /// The paths below `at` that stay visible because the child needs them.
    pub(crate) visible: BTreeSet<PathBuf>,
}

impl OwnMounts {
    /// Translates `path`, as the child sees it, into the path of the same file outside the child's
    /// mount of [`Self::dir`].
    pub(super) fn outside(&self, path: &Path) -> PathBuf {
        let below = |(real, at): &(PathBuf, PathBuf)| Some(real.join(path.strip_prefix(at).ok()?));
        self.dir.as_ref().and_then(below).unwrap_or_else(|| path.to_owned())
    }

    /// Returns the source and the mount point of each mount, in the order of mounting. Paths named
    /// in `env` stay visible.
    fn binds(&self, env: &Environment) -> Vec<(PathBuf, PathBuf)> {
        let mut binds: Vec<_> = self.dir.iter().cloned().collect();
        for temporary in &self.temporary {
            let mut visible = temporary.visible.clone();
            visible.extend(env.iter().flat_map(|(_, value)| paths_below(value, &temporary.at)));
            for path in outermost(&visible) {
                let Ok(below) = path.strip_prefix(&temporary.at) else { continue };
                binds.push((path.clone(), temporary.real.join(below)));
            }
            binds.push((temporary.real.clone(), temporary.at.clone()));
        }
        binds
    }
}

/// Extracts paths from a text such as `-I/tmp/include:/tmp/bin`. Returns those that exist and are
/// below `dir`.
pub(crate) fn paths_below(text: &OsStr, dir: &Path) -> Vec<PathBuf> {
    let text = text.to_string_lossy();
    let start = format!("{}/", dir.display());
    let is_below = |path: &PathBuf| {
        let leads_up = path.components().any(|part| part == Component::ParentDir);
        path != dir && !leads_up && path.exists()
    };
    text.split(|c: char| c.is_whitespace() || ":;,='\"".contains(c))
        .filter_map(|word| Some(PathBuf::from(&word[word.find(&start)?..])))
        .filter(is_below)
        .collect()
}

/// Returns `paths` without the paths that are below another one of them.
fn outermost(paths: &BTreeSet<PathBuf>) -> Vec<&PathBuf> {
    let is_below = |path: &Path| path.ancestors().skip(1).any(|dir| paths.contains(dir));
    paths.iter().filter(|path| !is_below(path)).collect()
}

impl Confinement {
    /// Creates a confinement with `bond` and no private mounts, without probing the machine.
    #[must_use]
    pub fn known(bond: Bond) -> Self {
        Self(Arc::new(OnceLock::from(Support { bond, own_mounts: false })))
    }

    /// Returns the strongest bond that works on this machine.
    pub(super) fn bond(&self, tools: &Tools) -> Bond {
        self.support(tools).bond
    }

    /// Returns true if a child can have private mounts, for example one directory mounted over
    /// another.
    ///
    /// Returns false without the necessary privileges. Also returns false if `/` is not a mount
    /// point, as in some chroots, because the whole machine would see the child's mounts.
    #[must_use]
    pub fn has_own_mounts(&self, tools: &Tools) -> bool {
        self.support(tools).own_mounts
    }

    fn support(&self, tools: &Tools) -> Support {
        *self.0.get_or_init(|| {
            let mut levels = Support::LEVELS.into_iter().filter(|_| is_program(&tools.confine));
            let support = levels.find(|level| level.works(tools)).unwrap_or(Support::NONE);
            log::debug!("confinement of child processes: {support:?}");
            support
        })
    }
}

/// Returns the first words of a command line that runs a program with `bond` and `mounts` in the
/// environment `env`.
///
/// With mounts, the child changes to the directory `cwd` after mounting, because a mount may hide
/// the working directory that the child inherits.
///
/// The child sets its own death signal. If this process has already been killed by then, no signal
/// is sent, so the child also checks that its parent is still this process.
pub(super) fn words(
    tools: &Tools,
    bond: Bond,
    mounts: Option<&OwnMounts>,
    cwd: Option<&Path>,
    env: &Environment,
) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    if bond == Bond::None {
        return words;
    }
    words.push(tools.confine.clone().into());
    words.extend(["--parent".into(), std::process::id().to_string().into()]);
    if bond == Bond::Namespace {
        words.push("--pid-namespace".into());
        if let Some(mounts) = mounts {
            words.push("--own-mounts".into());
            for (from, at) in mounts.binds(env) {
                words.extend(["--bind".into(), from.into(), at.into()]);
            }
            for file in &mounts.masked {
                words.extend(["--mask".into(), file.into()]);
            }
            words.extend(["--cwd".into(), cwd.unwrap_or(Path::new("/")).into()]);
        }
    }
    words.push("--".into());
    words
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn paths_in_the_environment_stay_visible() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let at = |name: &str| dir.join(name).display().to_string();
        for name in ["bin", "include", "cache/deep"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        let env = Environment::default()
            .with("PATH", format!("{}:/usr/bin:{}", at("bin"), at("none")))
            .with("KCFLAGS", format!("-O2 -I{} -DX=\"{}\"", at("include"), at("include")))
            .with("CCACHE_DIR", at("cache"))
            .with("OTHER", format!("{0}/../etc {0}/", dir.display()))
            .with("TMPDIR", dir);
        let mounts = OwnMounts {
            temporary: vec![OwnTemporary {
                at: dir.to_owned(),
                real: "/own".into(),
                visible: BTreeSet::from([dir.join("cache/deep")]),
            }],
            ..OwnMounts::default()
        };
        let binds = ["bin", "cache", "include"]
            .map(|name| (dir.join(name), Path::new("/own").join(name)))
            .into_iter()
            .chain([("/own".into(), dir.to_owned())]);
        assert_eq!(mounts.binds(&env), binds.collect::<Vec<_>>());
    }

    #[test]
    fn scripts_in_the_build_directory_are_found_outside_the_mount() {
        let dir = Some(("/t/.build/x".into(), "/t/x/1/build".into()));
        let mounts = OwnMounts { dir, ..OwnMounts::default() };
        let outside = |path: &str| mounts.outside(Path::new(path));
        assert_eq!(outside("/t/x/1/build/pre.sh"), Path::new("/t/.build/x/pre.sh"));
        assert_eq!(outside("/etc/dkms/x/pre.sh"), Path::new("/etc/dkms/x/pre.sh"));
    }
}
