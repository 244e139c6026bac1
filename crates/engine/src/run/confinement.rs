//! How a child is bound to our own life, so that a killed engine leaves no compiler running.

use std::ffi::OsString;
use std::sync::OnceLock;
use std::time::Duration;

use super::{Environment, How, Program, Stop, Tools};

/// How firmly children can be bound on this machine. A probe finds it out once; containers and
/// users without privileges get less than root on a real machine.
#[derive(Debug, Clone, Default)]
pub struct Confinement(OnceLock<Bond>);

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

impl Confinement {
    /// A bond that is known already, without a probe.
    #[must_use]
    pub fn known(bond: Bond) -> Self {
        Self(OnceLock::from(bond))
    }

    /// The firmest bond that works here.
    pub(super) fn bond(&self, tools: &Tools) -> Bond {
        *self.0.get_or_init(|| {
            let works = |bond: &Bond| probe(tools, *bond);
            let bond = [Bond::Namespace, Bond::DeathSignal].into_iter().find(works);
            let bond = bond.unwrap_or(Bond::None);
            log::debug!("children are bound by: {bond:?}");
            bond
        })
    }
}

/// Whether a program started with this bond runs and hands back its exit status.
fn probe(tools: &Tools, bond: Bond) -> bool {
    let confinement = Confinement::known(bond);
    let tools = Tools { confinement, stop: Stop::default(), ..tools.clone() };
    Program::new(&tools.bash, &Environment::fixed())
        .args(["-c", "exit 42"])
        .confined(&tools)
        .deadline(Duration::from_secs(10))
        .run()
        .is_ok_and(|ended| ended.how == How::Exited(42))
}

/// The words that stand before a command line to bind the program with `bond` to this process.
///
/// The death signal is set by the child, so an engine killed just before that would not be
/// noticed: bash looks once whether its parent is still us.
pub(super) fn words(tools: &Tools, bond: Bond) -> Vec<OsString> {
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
        words.extend(["--pid", "--fork", "--kill-child", "--"].map(OsString::from));
    }
    words
}
