//! Binds a child to the life of this process, and gives it mounts of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Environment, How, Program, Stop, Tools};

/// How firmly children can be bound on this machine, and whether they can have mounts of their
/// own. Probes find it out once; containers and users without privileges get less than root on a
/// real machine.
#[derive(Debug, Clone, Default)]
pub struct Confinement(Arc<Probed>);

/// What the probes found, shared by all copies of a [`Confinement`].
#[derive(Debug, Default)]
struct Probed {
    bond: OnceLock<Bond>,
    own_mounts: OnceLock<bool>,
}

/// What binds a child to our life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// A pid namespace of its own, whose first process dies with us: the kernel ends all the rest.
    Namespace,
    /// The child itself dies with us (`PR_SET_PDEATHSIG`); its own children may live on.
    DeathSignal,
    /// Nothing.
    None,
}

/// A directory that a child sees in the place of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// The directory.
    pub(crate) real: PathBuf,
    /// Where the child finds it.
    pub(crate) at: PathBuf,
}

impl Shown {
    /// Where the file is for us that the child finds at `path`.
    pub(super) fn outside(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.at).map_or_else(|_| path.to_owned(), |rest| self.real.join(rest))
    }
}

impl Confinement {
    /// A bond that is known already, without a probe; and no mounts of their own for children.
    #[must_use]
    pub fn known(bond: Bond) -> Self {
        Self(Arc::new(Probed { bond: OnceLock::from(bond), own_mounts: OnceLock::from(false) }))
    }

    /// The firmest bond that works here.
    pub(super) fn bond(&self, tools: &Tools) -> Bond {
        *self.0.bond.get_or_init(|| {
            let works = |bond: &Bond| probe(tools, *bond, None);
            let bond = [Bond::Namespace, Bond::DeathSignal].into_iter().find(works);
            let bond = bond.unwrap_or(Bond::None);
            log::debug!("children are bound by: {bond:?}");
            bond
        })
    }

    /// Returns true if a child can be shown a directory in the place of another one, both below
    /// `tree`, and nobody else sees it.
    ///
    /// Not without privileges, and not where `/` cannot be made private, as in a chroot that is no
    /// mount point: a mount would be seen by the whole machine.
    #[must_use]
    pub fn has_own_mounts(&self, tools: &Tools, tree: &Path) -> bool {
        *self.0.own_mounts.get_or_init(|| {
            let shown = Shown { real: tree.to_owned(), at: tree.to_owned() };
            let works =
                self.bond(tools) == Bond::Namespace && probe(tools, Bond::Namespace, Some(shown));
            log::debug!("children have mounts of their own: {works}");
            works
        })
    }
}

/// Returns true if a program started with this bond runs and hands back its exit status.
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

/// The words that stand before a command line to bind the program with `bond` to this process,
/// and to show it a directory in the place of another one; `cwd` is where it then starts.
///
/// The death signal is set by the child, so an engine killed just before that would not be
/// noticed: bash looks once whether its parent is still us.
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
                // Entered anew: the directory that we started in is the one below the mount.
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
