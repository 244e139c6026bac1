//! Interprets a parsed command line.
//!
//! Makes the checks that dkms makes before it reads any tree, in dkms's order and with dkms's exit
//! codes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use dkms_engine::failure::Failure;
use dkms_engine::names::{BadName, KernelRelease, ModuleId, ModuleName, ModuleVersion};
use dkms_engine::plan::Verb;
use dkms_engine::status::Filter;
use verify::Extent;

use crate::args::commands::Command;
use crate::args::kernel_args::KernelArgs;
use crate::args::module_arg::ModuleArg;
use crate::args::options::OptId;
use crate::args::parsed::{Args, ModuleWord};
use crate::args::refusal::{NOT_ROOT, of_no_command, refuse};
use crate::args::subject::{ArchiveOptions, Context, KernelChoice, Subject, Target};
use crate::args::versions::versions;

/// The action that a command line requests.
#[derive(Debug)]
pub enum Intent {
    /// List modules.
    Status(Filter),
    /// Explain the state of a module.
    Explain {
        /// The name of the module.
        module: ModuleName,
        /// The version; `None` for all versions.
        version: Option<ModuleVersion>,
        /// The kernels; `None` for all installed kernels.
        kernels: Option<Vec<Target>>,
    },
    /// Install all modules with AUTOINSTALL=yes for one kernel; `None` for every kernel with
    /// headers.
    Autoinstall(Option<Target>),
    /// Finish the pending work of interrupted runs.
    FinishPending,
    /// Check that everything is as it should be.
    Verify(Extent),
    /// List the build cache.
    Cache,
    /// Clear the build cache.
    ClearCache,
    /// Regenerate initramfs images that contain changed modules.
    Initramfs,
    /// Check whether modules build with packages that are not installed yet, or allow the next
    /// transaction to lose modules.
    Preflight(PreflightIntent),
    /// Install the modules of one kernel for another.
    Match {
        /// The kernel from which to take the list of modules.
        template: KernelRelease,
        /// The kernel for which to install the modules.
        target: Target,
        /// The only module to install; `None` for all.
        module: Option<ModuleName>,
    },
    /// Create the module signing key. The path of the key in the settings can contain the kernel
    /// release.
    GenerateMok(Option<KernelRelease>),
    /// Delete the builds for a kernel: the builds of all modules if the flag is true, otherwise
    /// only the builds that autoinstall would make again.
    Clear(Target, bool),
    /// Write a module to an archive.
    Pack(ModuleId, KernelChoice, ArchiveOptions),
    /// Report mistakes in the source in a directory or an archive. The source's dkms.conf is
    /// evaluated for this kernel.
    Lint(Subject, Target),
    /// Run `add`, `build`, `install`, `uninstall`, `unbuild` or `remove` on one module.
    Change(Verb, Subject, KernelChoice),
}

/// The action that `dkms preflight` requests.
#[derive(Debug, PartialEq, Eq)]
pub enum PreflightIntent {
    /// Allow the next transaction to lose modules.
    AllowOnce,
    /// Test-build the modules with these package files.
    Files(Vec<PathBuf>),
    /// Test-build the modules with the packages that the next `pacman -Syu` would install.
    Upgrade {
        /// Whether to download package files that are not in the cache of pacman.
        downloads: bool,
    },
}

impl Intent {
    /// Interprets the command line on this machine.
    ///
    /// # Errors
    /// [`Failure`] with exit code 1 for a missing module, 2 for an invalid value or `--all`
    /// with a kernel, 3 for `--all` with an architecture, 4 for no kernel or more than one, 5 for
    /// `--all` with a command that does not support it, 8 for an empty archive, 16 for an empty
    /// kernel or architecture.
    pub fn read(args: &Args, context: &Context<'_>) -> Result<Self, Failure> {
        if args.has(OptId::BinariesOnly) && args.has(OptId::SourceOnly) {
            return refuse(
                8,
                "--binaries-only and --source-only: cannot be combined: the archive would be empty",
            );
        }
        let kernels = KernelArgs::read(args)?;
        let Some(command) = args.command else { return Err(of_no_command(args)) };
        let module = ModuleArg::read(args, command, context);
        for word in &module.ignored {
            log::warn!("{word}: unexpected argument, ignored: the module is already given");
        }
        Reading { args, command, kernels, context }.intent(module)
    }
}

/// A parsed command line whose command and kernels are known.
struct Reading<'a> {
    args: &'a Args,
    command: Command,
    kernels: KernelArgs<'a>,
    context: &'a Context<'a>,
}

impl Reading<'_> {
    fn intent(&self, module: ModuleArg) -> Result<Intent, Failure> {
        match self.command {
            Command::Status => Ok(Intent::Status(self.kernels.filter(&module))),
            Command::Verify => self.verify(module),
            Command::Explain => self.explain(module),
            Command::Cache => cache(self.args),
            Command::GenerateMok => {
                let target = self.kernels.target(self.context)?;
                Ok(Intent::GenerateMok(Some(target.kernel).filter(|_| self.kernels.is_given())))
            }
            Command::Autoinstall => self.autoinstall(),
            Command::KernelPostinst => Ok(Intent::Autoinstall(Some(self.target()?))),
            Command::KernelPreinst => Ok(Intent::Clear(self.target()?, false)),
            Command::KernelPrerm => Ok(Intent::Clear(self.target()?, true)),
            Command::Initramfs => Ok(Intent::Initramfs),
            Command::Preflight => preflight(self.args),
            Command::Match => self.matching(module),
            Command::Add => self.change(Verb::Add, module),
            Command::Build => self.change(Verb::Build, module),
            Command::Install => self.change(Verb::Install, module),
            Command::Uninstall => self.change(Verb::Uninstall, module),
            Command::Unbuild => self.change(Verb::Unbuild, module),
            Command::Remove => self.change(Verb::Remove, module),
            Command::Ldtarball => self.load(module),
            Command::Mktarball => self.pack(module),
            Command::Lint => self.lint(module),
        }
    }

    fn verify(&self, module: ModuleArg) -> Result<Intent, Failure> {
        let boot = self.args.has(OptId::Boot);
        if boot && self.kernels.is_given() {
            return refuse(2, "--boot: cannot be combined with -k (expected only one of them)");
        }
        let kernels = match self.kernels.is_given() {
            true => self.kernels.targets(self.context)?.into_iter().map(|it| it.kernel).collect(),
            false => BTreeSet::new(),
        };
        let module = self.name_and_version(module)?;
        if let Some((name, version)) = &module
            && !versions(self.context.machine, name)
                .iter()
                .any(|it| version.as_ref().is_none_or(|version| it.version == *version))
        {
            let id = version.as_ref().map(|version| format!("{name}/{version}"));
            let id = id.unwrap_or_else(|| name.to_string());
            return Err(Failure::new(3, format!("{id}: not added")).with_hint("see: dkms status"));
        }
        Ok(Intent::Verify(Extent { kernels, boot, module }))
    }

    fn target(&self) -> Result<Target, Failure> {
        self.kernels.check_one(self.command)?;
        self.kernels.target(self.context)
    }

    fn autoinstall(&self) -> Result<Intent, Failure> {
        if self.kernels.all() {
            self.check_options_of_one_kernel()?;
        } else {
            self.kernels.check_one(self.command)?;
        }
        if self.args.has(OptId::Pending) {
            return Ok(Intent::FinishPending);
        }
        Ok(Intent::Autoinstall(match self.kernels.all() {
            true => None,
            false => Some(self.kernels.target(self.context)?),
        }))
    }

    fn matching(&self, module: ModuleArg) -> Result<Intent, Failure> {
        if !self.context.is_root {
            return refuse(1, NOT_ROOT);
        }
        let target = self.target()?;
        let Some(template) = self.args.template.as_deref().filter(|text| !text.is_empty()) else {
            return Err(Failure::new(1, "match: no --templatekernel given")
                .with_hint("run: dkms match --templatekernel RELEASE"));
        };
        let bad = |why: BadName| Failure::new(1, why.to_string());
        let template: KernelRelease = template.parse().map_err(bad)?;
        if template == target.kernel {
            return refuse(2, format!("--templatekernel: {template}: same as the target kernel"));
        }
        let module = module.module.map(|name| name.parse().map_err(bad)).transpose()?;
        Ok(Intent::Match { template, target, module })
    }

    fn explain(&self, module: ModuleArg) -> Result<Intent, Failure> {
        let Some((module, version)) = self.name_and_version(module)? else {
            return Err(Failure::new(1, "explain: no module given")
                .with_hint(format!("run: {}", self.command.expected())));
        };
        let kernels = self.kernels.is_given().then(|| self.kernels.targets(self.context));
        Ok(Intent::Explain { module, version, kernels: kernels.transpose()? })
    }

    /// Returns the name and the version of a module for a command that works on all versions if no
    /// version is given. Returns `None` if no name and no version is given.
    fn name_and_version(
        &self,
        module: ModuleArg,
    ) -> Result<Option<(ModuleName, Option<ModuleVersion>)>, Failure> {
        let bad = |why: BadName| Failure::new(1, why.to_string());
        let Some(name) = module.module else {
            return match module.version {
                Some(_) => {
                    refuse(1, format!("{}: a version without a module", self.command.name()))
                }
                None => Ok(None),
            };
        };
        let name = name.parse().map_err(bad)?;
        let version = module.version.map(|version| version.parse().map_err(bad)).transpose()?;
        Ok(Some((name, version)))
    }

    fn load(&self, module: ModuleArg) -> Result<Intent, Failure> {
        match &module.path {
            None => {
                return Err(Failure::new(2, "ldtarball: no archive given")
                    .with_hint("run: dkms ldtarball ARCHIVE"));
            }
            Some(path) if !path.exists() => {
                return refuse(
                    2,
                    format!("{}: no such file (expected an archive)", path.display()),
                );
            }
            Some(_) => {}
        }
        // The archive names its module.
        let module = ModuleArg { module: None, version: None, ..module };
        self.change(Verb::Add, module)
    }

    fn pack(&self, module: ModuleArg) -> Result<Intent, Failure> {
        let Subject::Module(id) = module.subject(self.command, self.context)? else {
            return Err(Failure::new(1, "mktarball: no module given")
                .with_hint("run: dkms mktarball MODULE/VERSION"));
        };
        let options = ArchiveOptions {
            no_source: self.args.has(OptId::BinariesOnly),
            no_builds: self.args.has(OptId::SourceOnly),
            archive: self.args.archive.clone(),
        };
        Ok(Intent::Pack(id, self.kernels.choice(self.context)?, options))
    }

    fn lint(&self, module: ModuleArg) -> Result<Intent, Failure> {
        let path = module.path.filter(|_| module.module.is_none() && module.version.is_none());
        if path.is_none() {
            return Err(Failure::new(2, "lint: no path given").with_hint("run: dkms lint PATH"));
        }
        let module = ModuleArg { path, ..ModuleArg::default() };
        Ok(Intent::Lint(module.subject(self.command, self.context)?, self.target()?))
    }

    fn change(&self, verb: Verb, module: ModuleArg) -> Result<Intent, Failure> {
        let all = self.kernels.all();
        if all && verb == Verb::Add {
            return refuse(5, format!("--all: cannot be used with {}", self.command.name()));
        }
        if all && module.is_path() {
            return refuse(5, "--all: cannot be used with a path (expected MODULE/VERSION)");
        }
        let subject = module.subject(self.command, self.context)?;
        if all && matches!(verb, Verb::Build | Verb::Install) {
            self.check_options_of_one_kernel()?;
        }
        let mut kernels = self.kernels.choice(self.context)?;
        if let (Verb::Add, KernelChoice::These(targets)) = (verb, &mut kernels) {
            targets.truncate(1); // only matters to dkms.conf (dkms-behaviour 3.2)
        }
        Ok(Intent::Change(verb, subject, kernels))
    }

    /// Returns an error if `--all` is combined with an option that applies to a single kernel.
    fn check_options_of_one_kernel(&self) -> Result<(), Failure> {
        let args = self.args;
        let options = [("--kernelsourcedir", &args.kernel_source), ("--config", &args.config)];
        match options.into_iter().find(|(_, path)| path.is_some()) {
            Some((option, _)) => {
                refuse(2, format!("{option}: cannot be combined with --all (expected: -k RELEASE)"))
            }
            None => Ok(()),
        }
    }
}

/// Interprets the operand of `cache`.
fn cache(args: &Args) -> Result<Intent, Failure> {
    match args.names.as_slice() {
        [] => Ok(Intent::Cache),
        [ModuleWord::Word(word)] if word == "clear" => Ok(Intent::ClearCache),
        _ => refuse(2, "cache: unexpected argument (expected nothing or clear)"),
    }
}

/// Interprets the options of `preflight`.
fn preflight(args: &Args) -> Result<Intent, Failure> {
    let file = |name: &ModuleWord| match name {
        ModuleWord::Word(word) => Some(PathBuf::from(word)),
        ModuleWord::Module(_) | ModuleWord::Version(_) => None,
    };
    let files: Option<Vec<PathBuf>> = args.names.iter().map(file).collect();
    let Some(files) = files else {
        return refuse(2, "preflight: unexpected option -m or -v (expected package files)");
    };
    let upgrade = PreflightIntent::Upgrade { downloads: !args.has(OptId::NoDownload) };
    let requests = [
        (!files.is_empty(), PreflightIntent::Files(files)),
        (args.has(OptId::Upgrade), upgrade),
        (args.has(OptId::AllowOnce), PreflightIntent::AllowOnce),
    ];
    let mut requests = requests.into_iter().filter_map(|(given, intent)| given.then_some(intent));
    match (requests.next(), requests.next()) {
        (Some(intent), None) => Ok(Intent::Preflight(intent)),
        (Some(_), Some(_)) => {
            refuse(2, "preflight: package files, --upgrade and --allow-once cannot be combined")
        }
        (None, _) => Err(Failure::new(2, "preflight: no package files given")
            .with_hint("run: dkms preflight --upgrade")),
    }
}

#[cfg(test)]
mod tests;
