//! Confines child processes: kills them when this process ends, and gives them private mounts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Environment, How, Program, Stop, Tools};

/// The confinement that this machine supports: the strongest [`Bond`], and possibly private mounts.
///
/// Support is probed on first use, because containers and unprivileged users have fewer
/// permissions than root.
#[derive(Debug, Clone, Default)]
pub struct Confinement(Arc<Probed>);

/// Probe results, shared by all clones of a [`Confinement`].
#[derive(Debug, Default)]
struct Probed {
    bond: OnceLock<Bond>,
    own_mounts: OnceLock<bool>,
}

/// The mechanism that kills a child when this process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// A pid namespace. When this program ends, the kernel kills the first process of the namespace,
    /// and then all other processes in it.
    Namespace,
    /// A parent death signal (`PR_SET_PDEATHSIG`). Only the child is killed; its own children may
    /// survive.
    DeathSignal,
    /// No mechanism: the child and its descendants may survive.
    None,
}

/// A directory that is mounted over another directory for one child only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// The directory to mount.
    pub(crate) real: PathBuf,
    /// The directory over which `real` is mounted.
    pub(crate) at: PathBuf,
}

impl Shown {
    /// Converts `path`, as the child uses it, to the path of the same file outside the mount.
    pub(super) fn outside(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.at).map_or_else(|_| path.to_owned(), |rest| self.real.join(rest))
    }
}

impl Confinement {
    /// Creates a confinement with `bond` and no private mounts, without probing the machine.
    #[must_use]
    pub fn known(bond: Bond) -> Self {
        Self(Arc::new(Probed { bond: OnceLock::from(bond), own_mounts: OnceLock::from(false) }))
    }

    /// Returns the strongest bond that works on this machine.
    pub(super) fn bond(&self, tools: &Tools) -> Bond {
        *self.0.bond.get_or_init(|| {
            let works = |bond: &Bond| probe(tools, *bond, None);
            let bond = [Bond::Namespace, Bond::DeathSignal].into_iter().find(works);
            let bond = bond.unwrap_or(Bond::None);
            log::debug!("confinement of child processes: {bond:?}");
            bond
        })
    }

    /// Returns true if a child can have a private bind mount of one directory over another, where
    /// both are below `tree`.
    ///
    /// Returns false without the necessary privileges. Also returns false if `/` cannot be made a
    /// private mount, as in a chroot that is not a mount point: bind mounts would then be visible
    /// to the whole machine.
    #[must_use]
    pub fn has_own_mounts(&self, tools: &Tools, tree: &Path) -> bool {
        *self.0.own_mounts.get_or_init(|| {
            let shown = Shown { real: tree.to_owned(), at: tree.to_owned() };
            let works =
                self.bond(tools) == Bond::Namespace && probe(tools, Bond::Namespace, Some(shown));
            log::debug!("private mounts of child processes: {works}");
            works
        })
    }
}

/// Returns true if a program can be run with `bond` and the mount `shown`, and this process
/// receives its exit status.
fn probe(tools: &Tools, bond: Bond, shown: Option<Shown>) -> bool {
    let confinement = Confinement::known(bond);
    let tools = Tools { confinement, stop: Stop::default(), ..tools.clone() };
    let environment = Environment::fixed();
    let mut program = Program::new(&tools.bash, &environment)
        .args(["-c", "exit 42"])
        .confined(&tools)
        .deadline(Duration::from_secs(10));
    program.shown = shown;
    program.run().is_ok_and(|ended| ended.how == How::Exited(42))
}

/// Returns the words that a command line must start with to run with `bond` and the mount `shown`.
///
/// With a mount, the child changes to the directory `cwd` after mounting.
///
/// The child itself sets its death signal, which is too late if this process has already been
/// killed. bash therefore checks that its parent is still this process.
pub(super) fn words(
    tools: &Tools,
    bond: Bond,
    shown: Option<&Shown>,
    cwd: Option<&Path>,
) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    if bond == Bond::None {
        return words;
    }
    words.push(tools.setpriv.clone().into());
    words.extend(["--pdeathsig", "KILL", "--"].map(OsString::from));
    words.push(tools.bash.clone().into());
    words.extend(["-p", "-c", r#"[ "$PPID" = "$0" ] || exit 125; exec "$@""#].map(OsString::from));
    words.push(std::process::id().to_string().into());
    if bond == Bond::Namespace {
        words.push(tools.unshare.clone().into());
        words.extend(["--pid", "--fork", "--kill-child"].map(OsString::from));
        match shown {
            None => words.push("--".into()),
            Some(shown) => {
                words.extend(["--mount", "--propagation", "private", "--"].map(OsString::from));
                words.push(tools.bash.clone().into());
                // The mount hides the inherited working directory, so enter it again.
                let enter =
                    r#""$0" -n --bind "$1" "$2" && cd "$3" && shift 3 && exec "$@"; exit 125"#;
                words.extend(["-p", "-c", enter].map(OsString::from));
                words.push(tools.mount.clone().into());
                words.extend([&shown.real, &shown.at].map(OsString::from));
                words.push(cwd.unwrap_or(Path::new("/")).into());
            }
        }
    }
    words
}
