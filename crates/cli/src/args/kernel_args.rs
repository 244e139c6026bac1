//! The kernels on the command line: `-k`, `-a` and `--all`.

use dkms_engine::failure::Failure;
use dkms_engine::names::BadName;
use dkms_engine::status::{Filter, KernelFilter, Pattern};

use crate::args::commands::Command;
use crate::args::module_arg::ModuleArg;
use crate::args::options::OptId;
use crate::args::parsed::Args;
use crate::args::refusal::refuse;
use crate::args::subject::{Context, KernelChoice, Target};

/// The values of `-k`, `-a` and `--all`.
#[derive(Debug)]
pub struct KernelArgs<'a> {
    /// The values of `-k`, split into release and architecture. The architecture is `None` if a
    /// value contains none.
    kernels: Vec<(&'a str, Option<&'a str>)>,
    /// The architectures from `-k RELEASE/ARCH`, then those from `-a`.
    arches: Vec<&'a str>,
    /// Whether `--all` was given.
    all: bool,
}

impl<'a> KernelArgs<'a> {
    /// Reads the options that name kernels and checks them in dkms's order.
    ///
    /// # Errors
    /// [`Failure`] with exit code 1 if there are several architectures, but not one for each
    /// kernel, 2 for `--all` with a kernel, 3 for `--all` with an architecture, 4 and 5 as for
    /// [`KernelArgs::check_one`], 16 for an empty value.
    pub fn read(args: &'a Args) -> Result<Self, Failure> {
        let split = |word: &'a String| match word.split_once('/') {
            Some((kernel, arch)) => (kernel, Some(arch)),
            None => (word.as_str(), None),
        };
        let kernels: Vec<_> = args.kernels.iter().map(split).collect();
        let mut arches: Vec<_> = kernels.iter().filter_map(|(_, arch)| *arch).collect();
        arches.extend(args.arches.iter().map(String::as_str));
        let read = Self { kernels, arches, all: args.has(OptId::All) };
        read.check(args.command)?;
        Ok(read)
    }

    fn check(&self, command: Option<Command>) -> Result<(), Failure> {
        let (kernels, arches) = (self.kernels.len(), self.arches.len());
        if arches > 1 && arches != kernels {
            return refuse(
                1,
                format!(
                    "-a: wrong number of architectures: {arches} (expected one, or one for each -k)"
                ),
            );
        }
        if self.all && kernels > 0 {
            return refuse(2, "--all: cannot be combined with -k (expected only one of them)");
        }
        if self.all && arches > 0 {
            return refuse(3, "--all: cannot be combined with -a (expected -k RELEASE -a ARCH)");
        }
        if let Some(command) = command.filter(|command| command.is_kernel_hook()) {
            self.check_one(command)?;
        }
        if command == Some(Command::Status) {
            return Ok(());
        }
        if self.kernels.iter().any(|(kernel, _)| kernel.is_empty()) {
            return refuse(16, "-k: empty value (expected RELEASE, as printed by uname -r)");
        }
        if self.arches.contains(&"") {
            return refuse(16, "-a: empty value (expected ARCH, as printed by uname -m)");
        }
        Ok(())
    }

    /// Checks that exactly one kernel is given for a command that works on a single kernel.
    ///
    /// Without `-k`, such a command works on the running kernel. Only the commands for scripts of
    /// kernel packages require `-k`.
    ///
    /// # Errors
    /// [`Failure`] with exit code 4 if more than one kernel is given, or none to a command that
    /// requires `-k`; with exit code 5 if `--all` is given.
    pub fn check_one(&self, command: Command) -> Result<(), Failure> {
        let name = command.name();
        if self.all {
            return refuse(5, format!("--all: cannot be used with {name} (expected -k RELEASE)"));
        }
        let default = usize::from(!command.is_kernel_hook());
        match self.kernels.len().max(default) {
            1 => Ok(()),
            0 => Err(Failure::new(4, format!("{name}: no kernel given"))
                .with_hint(format!("run: dkms {name} -k RELEASE"))),
            _ => refuse(4, format!("{name}: more than one kernel given (expected one -k)")),
        }
    }

    /// Returns true if `-k` was given.
    pub fn is_given(&self) -> bool {
        !self.kernels.is_empty()
    }

    /// Returns true if `--all` was given.
    pub fn all(&self) -> bool {
        self.all
    }

    /// Returns the kernels, each paired with the architecture at the same position. A single
    /// architecture applies to every kernel.
    ///
    /// # Errors
    /// [`Failure`] with exit code 1 for an invalid name.
    pub fn targets(&self, context: &Context<'_>) -> Result<Vec<Target>, Failure> {
        let running = [(context.kernel.as_str(), None)];
        let kernels = if self.kernels.is_empty() { &running } else { self.kernels.as_slice() };
        let mut targets = Vec::new();
        for (index, (kernel, _)) in kernels.iter().enumerate() {
            let bad = |option| move |why: BadName| Failure::new(1, format!("{option}: {why}"));
            targets.push(Target {
                kernel: kernel.parse().map_err(bad("-k"))?,
                arch: match self.arch(index) {
                    Some(arch) => arch.parse().map_err(bad("-a"))?,
                    None => context.arch.clone(),
                },
            });
        }
        Ok(targets)
    }

    /// Returns the first of the [targets](Self::targets).
    ///
    /// # Errors
    /// See [`KernelArgs::targets`].
    pub fn target(&self, context: &Context<'_>) -> Result<Target, Failure> {
        Ok(self.targets(context)?.swap_remove(0))
    }

    /// Returns the kernels for a command that supports `--all`.
    ///
    /// # Errors
    /// See [`KernelArgs::targets`].
    pub fn choice(&self, context: &Context<'_>) -> Result<KernelChoice, Failure> {
        match self.all {
            true => Ok(KernelChoice::All),
            false => self.targets(context).map(KernelChoice::These),
        }
    }

    /// Returns the filter for `status`. All names in it are patterns.
    pub fn filter(&self, module: &ModuleArg) -> Filter {
        let pattern = |text: &str| (!text.is_empty()).then(|| Pattern::new(text));
        let arch = |index| self.arch(index).and_then(pattern);
        let mut kernels: Vec<KernelFilter> = self
            .kernels
            .iter()
            .enumerate()
            .map(|(index, (kernel, _))| KernelFilter { kernel: pattern(kernel), arch: arch(index) })
            .collect();
        if kernels.is_empty() && arch(0).is_some() {
            kernels.push(KernelFilter { kernel: None, arch: arch(0) });
        }
        Filter {
            module: module.module.as_deref().and_then(pattern),
            version: module.version.as_deref().and_then(pattern),
            kernels,
        }
    }

    fn arch(&self, index: usize) -> Option<&'a str> {
        self.arches.get(if self.arches.len() == 1 { 0 } else { index }).copied()
    }
}
