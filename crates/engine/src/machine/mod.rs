//! One machine as one run sees it: trees, kernels, distribution, memory, settings, lock.

mod distribution;
mod kernel_cache;
mod kernels;
mod lock;
mod memory;
mod path_programs;
mod run_options;
mod running_kernel;
mod settings;
mod trees;
mod warnings;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::names::{Arch, KernelRelease};
use crate::objects::{Compression, Signers};
use crate::os::bash::BashReader;
use crate::os::process::{Environment, Tools};
use kernel_cache::KernelCache;

pub use distribution::{BadPlace, Distribution, NoOsRelease, Placement};
pub use kernels::{Kernel, KernelConfig, Kernels};
pub use lock::Lock;
pub(crate) use lock::WITHIN_RUN;
pub(crate) use memory::Gate;
pub use memory::Memory;
pub(crate) use path_programs::path_programs;
pub use run_options::RunOptions;
pub(crate) use running_kernel::running_release;
pub use settings::{Framework, InitramfsMode, InitramfsSettings, Settings};
pub use trees::Trees;
pub(crate) use warnings::Warnings;

/// How the names of variables start that set a directive each, `NAME=value` (dkms-behaviour 3.1).
const DIRECTIVE: &str = "DKMS_DIRECTIVE";

/// One machine as one run sees it. Made at the edge of a binary, handed down everywhere.
#[derive(Debug)]
pub struct Machine {
    /// Where everything is.
    pub trees: Trees,
    /// The programs.
    pub tools: Tools,
    /// The environment of whatever is started.
    pub env: Environment,
    /// The administrator's settings.
    pub settings: Settings,
    /// Its distribution.
    pub(crate) distribution: Result<Distribution, NoOsRelease>,
    /// The memory of the machine.
    pub memory: Memory,
    /// What is built for.
    pub arch: Arch,
    /// Whether depmod runs (`--no-depmod`).
    pub depmod: bool,
    /// The options of the command line.
    pub options: RunOptions,
    /// Warnings to be shown when the run is over.
    pub(crate) warnings: Warnings,
    /// The signers of objects.
    pub(crate) signers: Signers,
    /// Whether images that hold modules are maintained: then changed modules are pending work for
    /// their kernel's images.
    pub images: bool,
    kernels: KernelCache,
}

impl Machine {
    /// A hook's machine below `root`: a fixed environment, since pacman hands on its user's, and a
    /// foreign gcc in PATH is a known way to break builds.
    #[must_use]
    pub fn for_hook(root: &Path) -> Self {
        Self::with(root, Environment::fixed())
    }

    /// A command's machine below `root`: its caller's environment, as with dkms.
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
            distribution: Distribution::read(&trees),
            trees,
            tools,
            env,
            settings,
            memory: Memory::default(),
            arch: Arch::of_this_machine(),
            depmod: true,
            options: RunOptions::default(),
            warnings: Warnings::default(),
            signers: Signers::default(),
            images: false,
            kernels: KernelCache::default(),
        }
    }

    /// Returns the place of built modules below a kernel's directory.
    ///
    /// # Errors
    /// [`NoOsRelease`] if the distribution is not known.
    pub fn placement(&self) -> Result<Placement, &NoOsRelease> {
        self.distribution.as_ref().map(|distribution| distribution.placement(&self.env))
    }

    /// Returns true if the distribution's name begins with one of these, as dkms compares them.
    pub(crate) fn is_any(&self, prefixes: &[&str]) -> bool {
        self.distribution.as_ref().is_ok_and(|distribution| distribution.is_any(prefixes))
    }

    /// Returns a kernel's configuration, read once; `None` if it has none.
    pub(crate) fn kernel_config(&self, kernel: &Kernel) -> Option<Arc<KernelConfig>> {
        self.kernels.config(kernel)
    }

    /// Returns the compression of a kernel's objects, looked up once.
    pub(crate) fn compression(&self, kernel: &Kernel) -> Compression {
        self.kernels.compression(kernel)
    }

    /// dkms's settings as they are for one kernel, which paths and commands in them may name.
    pub(crate) fn framework(&self, kernel: Option<&KernelRelease>) -> Framework {
        let mut reader = BashReader::new(self.tools.clone(), self.env.clone());
        reader.patience = self.settings.conf_timeout();
        // Problems of the files were reported when the settings were read.
        Framework::read(&self.trees, kernel, &mut reader, &mut Vec::new())
    }

    /// Returns the directory for large files that are not needed for long: `tmp_location`, else `$TMPDIR`, else `/tmp`.
    #[must_use]
    pub fn temporary_dir(&self) -> PathBuf {
        let set = self.settings.framework.tmp_location.clone();
        let dir = set.or_else(|| self.env.get("TMPDIR").map(PathBuf::from));
        dir.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or("/tmp".into())
    }

    /// Returns true if variables set directives beside the files.
    pub(crate) fn has_directives(&self) -> bool {
        let prefix = DIRECTIVE.as_bytes();
        self.env.iter().any(|(name, _)| name.as_encoded_bytes().starts_with(prefix))
    }
}
