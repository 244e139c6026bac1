//! The machine that a run works on: its trees, kernels, distribution, memory, settings and lock.

mod chroot;
mod compression;
mod distribution;
mod kernel_cache;
mod kernels;
mod lock;
mod memory;
mod module_index;
mod pacman;
mod path_programs;
mod precedence;
mod run_options;
mod running_kernel;
mod script_changes;
mod settings;
mod symbol_versions;
mod trees;
mod trial;
mod warnings;
mod written_files;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::names::{Arch, KernelRelease};
use crate::objects::{Compression, Signers};
use crate::os::bash::{BashReader, DIRECTIVE};
use crate::os::digest::Digest;
use crate::os::process::{Environment, Tools};
use crate::os::shared::lock;
use kernel_cache::KernelCache;

pub use chroot::has_other_root;
pub use distribution::{BadPlace, Distribution, NoOsRelease, Placement};
pub use kernels::{Kernel, KernelConfig, Kernels};
pub use lock::Lock;
pub(crate) use lock::WITHIN_RUN;
pub(crate) use memory::Gate;
pub use memory::Memory;
pub(crate) use module_index::{ModuleIndex, module_of};
pub use pacman::{Leftovers, Target, Transaction};
pub(crate) use pacman::{PackagedHeaders, owner_of, package_of_kernel};
pub(crate) use path_programs::path_programs;
pub use run_options::RunOptions;
pub use running_kernel::running_release;
pub(crate) use running_kernel::{RUNNING_KERNEL, reads_running_kernel};
pub(crate) use script_changes::Command;
use script_changes::ScriptChanges;
pub use settings::{
    Framework, InitramfsMode, InitramfsSettings, NotifySettings, PreflightMode, PreflightSettings,
    Settings,
};
pub(crate) use symbol_versions::{exported_by_kernel, exported_by_modules};
pub use trees::Trees;
pub use trial::Trial;
pub(crate) use warnings::Warnings;
pub(crate) use written_files::WrittenFiles;

/// The machine that a run works on. Each binary creates one and passes it to the engine.
#[derive(Debug)]
pub struct Machine {
    /// The paths of the source, dkms and install trees.
    pub trees: Trees,
    /// The paths of external programs such as `make` and `depmod`.
    pub tools: Tools,
    /// The environment of all child processes.
    pub env: Environment,
    /// The settings from the files in `/etc/dkms`.
    pub settings: Settings,
    pub(crate) distribution: Result<Distribution, NoOsRelease>,
    /// The directories in which the kernel reports memory usage.
    pub memory: Memory,
    /// The architecture that modules are built for.
    pub arch: Arch,
    /// Whether to run depmod; false with `--no-depmod`.
    pub depmod: bool,
    /// The command line options that override settings.
    pub options: RunOptions,
    /// The state of the trial run; `None` in any other run.
    pub trial: Option<Trial>,
    pub(crate) warnings: Warnings,
    pub(crate) script_changes: ScriptChanges,
    pub(crate) signers: Signers,
    chroot: OnceLock<bool>,
    /// Whether alpm-dkms maintains initramfs images. If true, a changed module adds pending work
    /// for the images of its kernel.
    pub images: bool,
    kernels: KernelCache,
}

impl Machine {
    /// Returns the machine below `root` for use in a hook.
    ///
    /// Child processes get a fixed environment, because another gcc in the PATH of the user who
    /// called pacman could break builds. The only variable kept from the hook's own environment is
    /// `ALPM_DKMS_WITHIN_RUN`, because a module's script may have started pacman.
    #[must_use]
    pub fn for_hook(root: &Path) -> Self {
        let env = Environment::fixed();
        Self::with(
            root,
            match std::env::var_os(WITHIN_RUN) {
                Some(value) => env.with(WITHIN_RUN, value),
                None => env,
            },
        )
    }

    /// Returns the machine below `root` for use in a command.
    ///
    /// Child processes get the caller's environment without the compiler variables, as in dkms.
    #[must_use]
    pub fn for_cli(root: &Path) -> Self {
        Self::with(root, Environment::of_caller())
    }

    fn with(root: &Path, env: Environment) -> Self {
        let tools = Tools::default();
        let usual = Trees::under(root);
        let settings = Settings::read(&usual, &tools, &env);
        let trees = settings.relocate(usual);
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
            trial: None,
            warnings: Warnings::default(),
            script_changes: ScriptChanges::default(),
            signers: Signers::default(),
            chroot: OnceLock::new(),
            images: false,
            kernels: KernelCache::default(),
        }
    }

    /// Returns the place below a kernel's directory where this distribution installs modules.
    ///
    /// # Errors
    /// [`NoOsRelease`] if the distribution is unknown.
    pub fn placement(&self) -> Result<Placement, &NoOsRelease> {
        self.distribution.as_ref().map(|distribution| distribution.placement(&self.env))
    }

    /// Returns true if the distribution's name starts with one of `prefixes`. Returns false if the
    /// distribution is unknown.
    pub(crate) fn is_any(&self, prefixes: &[&str]) -> bool {
        self.distribution.as_ref().is_ok_and(|distribution| distribution.is_any(prefixes))
    }

    /// Returns the configuration of `kernel`, or `None` if it cannot be read. Reads each file only
    /// once per run.
    pub(crate) fn kernel_config(&self, kernel: &Kernel) -> Option<Arc<KernelConfig>> {
        self.kernels.config(kernel)
    }

    /// Returns the compression of the objects of `kernel`. Detects it only once per run.
    pub(crate) fn compression(&self, kernel: &Kernel) -> Compression {
        self.kernels.compression(&self.trees, kernel)
    }

    /// Sets the compression of the objects of `kernel` to the most common one in `files`, a list of
    /// paths relative to the root, such as `usr/lib/modules/6.1/kernel/fs/ext4/ext4.ko.zst`. Does
    /// nothing if the list contains no object of the kernel.
    ///
    /// Overrides detection for a kernel whose objects have not been unpacked yet.
    pub fn set_compression_from(&self, kernel: &KernelRelease, files: &[String]) {
        if let Some(compression) = compression::of_files(&self.trees, kernel, files) {
            self.kernels.set_compression(kernel, compression);
        }
    }

    /// Reads dkms's settings and replaces `$kernelver` in them with `kernel`.
    pub(crate) fn framework(&self, kernel: Option<&KernelRelease>) -> Framework {
        let mut reader = BashReader::new(self.tools.clone(), self.env.clone());
        reader.patience = self.settings.conf_timeout();
        let mut problems = Vec::new();
        let framework = Framework::read(&self.trees, kernel, &mut reader, &mut problems);
        // `Settings::read` has already reported the problems removed here.
        problems.retain(|problem| !self.settings.problems().contains(problem));
        problems.into_iter().for_each(|problem| self.warnings.add(problem));
        framework
    }

    /// Omits `messages` from the warnings about confs, because an earlier hook of the same
    /// transaction has logged them.
    pub fn omit_warnings(&self, messages: impl IntoIterator<Item = String>) {
        lock(&self.warnings.logged).extend(messages);
    }

    /// Returns the warnings about confs that have been logged or omitted.
    #[must_use]
    pub fn logged_warnings(&self) -> BTreeSet<String> {
        lock(&self.warnings.logged).clone()
    }

    /// Returns the directory for large temporary files: `tmp_location` if it is set, otherwise
    /// `$TMPDIR` or `/tmp`.
    #[must_use]
    pub fn temporary_dir(&self) -> PathBuf {
        let set = self.settings.framework.tmp_location.clone();
        let dir = set.or_else(|| self.env.get("TMPDIR").map(PathBuf::from));
        dir.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or("/tmp".into())
    }

    /// Returns true if a script or a conf of another run started this process.
    #[must_use]
    pub fn is_within_run(&self) -> bool {
        lock::is_within_run(&self.env)
    }

    /// Returns true if builds can have mounts of their own.
    pub(crate) fn has_own_mounts(&self) -> bool {
        self.tools.confinement.has_own_mounts(&self.tools)
    }

    /// Returns true if this process runs in a chroot or works on a root directory other than `/`.
    ///
    /// Later calls return the result of the first one. A process must call this function before it
    /// enters namespaces of its own, in which it may see itself as process 1.
    pub fn is_chroot(&self) -> bool {
        let decide = || chroot::is_chroot(&self.trees.root, &self.env, Path::new("/proc"));
        *self.chroot.get_or_init(decide)
    }

    /// Returns a digest of the environment of builds. It covers the caller's variables and the
    /// content of the file that the setting `build_environment` names.
    pub(crate) fn build_environment(&self) -> Digest {
        let file = self.settings.build_environment().map(|file| self.trees.inside(&file));
        let file = file.and_then(|file| Digest::of_file(&file).ok());
        let parts = [Some(self.env.build_digest()), file].map(|it| it.map(String::from));
        Digest::of_bytes(parts.map(Option::unwrap_or_default).join(" ").as_bytes())
    }

    /// Returns true if at least one environment variable sets a directive.
    pub(crate) fn has_directives(&self) -> bool {
        let prefix = DIRECTIVE.as_bytes();
        self.env.iter().any(|(name, _)| name.as_encoded_bytes().starts_with(prefix))
    }
}
