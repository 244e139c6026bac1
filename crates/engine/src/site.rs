//! Everything a run works with besides its facts: where, with which programs, how hard.

use std::path::Path;

use crate::asked::Asked;
use crate::memory::Memory;
use crate::names::Arch;
use crate::run::{Environment, Tools};
use crate::settings::Settings;
use crate::trees::Trees;

/// One machine as one run sees it. Made at the edge of a binary, handed down everywhere.
#[derive(Debug)]
pub struct Site {
    /// Where everything is.
    pub trees: Trees,
    /// The programs.
    pub tools: Tools,
    /// The environment of whatever is started.
    pub env: Environment,
    /// The administrator's settings.
    pub settings: Settings,
    /// Where the machine tells how much memory there is.
    pub memory: Memory,
    /// What is built for.
    pub arch: Arch,
    /// Whether depmod runs (`--no-depmod`).
    pub depmod: bool,
    /// What a command line says otherwise.
    pub asked: Asked,
}

impl Site {
    /// A hook's site below `root`: a fixed environment, since pacman hands on its user's, and a
    /// foreign gcc in PATH is a known way to break builds.
    #[must_use]
    pub fn for_hook(root: &Path) -> Self {
        Self::with(root, Environment::fixed())
    }

    /// A command's site below `root`: its caller's environment, as with dkms.
    #[must_use]
    pub fn for_cli(root: &Path) -> Self {
        Self::with(root, Environment::of_caller())
    }

    fn with(root: &Path, env: Environment) -> Self {
        let tools = Tools::default();
        let usual = Trees::under(root);
        let settings = Settings::read(&usual, &tools, &env);
        let trees = settings.placed(usual);
        Self {
            trees,
            tools,
            env,
            settings,
            memory: Memory::default(),
            arch: Arch::of_this_machine(),
            depmod: true,
            asked: Asked::default(),
        }
    }
}
