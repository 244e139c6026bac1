//! What the command line means: the checks that dkms makes before it looks at anything, in its
//! order and with its exit codes.

use dkms_engine::failure::Failure;
use dkms_engine::names::{BadName, KernelRelease, ModuleId, ModuleName};
use dkms_engine::plan::Verb;

use crate::args::commands::Command;
use crate::args::module_arg::ModuleArg;
use crate::args::options::OptId;
use crate::args::parsed::{Args, ModuleWord};
use crate::args::refusal::{NOT_ROOT, refuse};
use crate::args::subject::{Here, KernelChoice, Subject, Target, Wrapping};

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Intent {
    /// List modules.
    Status(Filter),
    /// Install every willing module for a kernel, or for every one that has headers.
    Autoinstall(Option<Target>),
    /// Finish what interrupted runs left.
    FinishPending,
    /// List the builds that may come back.
    Cache,
    /// Forget them.
    ClearCache,
    /// Regenerate initramfs images that hold a module that changed.
    Initramfs,
    /// Install for the one kernel what the other has, or only this module.
    Match {
        /// The kernel that has it.
        template: KernelRelease,
        /// The kernel that gets it.
        target: Target,
        /// Only this module.
        module: Option<ModuleName>,
    },
    /// Make the key that modules are signed with; the kernel is for settings that name it.
    GenerateMok(Option<KernelRelease>),
    /// Forget what was built for a kernel: of willing modules, or (second) of all.
    Clear(Target, bool),
    /// Write a module into an archive.
    Pack(ModuleId, KernelChoice, Wrapping),
    /// Do something to one module.
    Change(Verb, Subject, KernelChoice),
}

/// Which modules are listed. Empty and `None` mean any; all are glob patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The module's name.
    pub module: Option<String>,
    /// The module's version.
    pub version: Option<String>,
    /// Kernel releases with the architecture that goes with each; the list repeats for each.
    pub kernels: Vec<(Option<String>, Option<String>)>,
    /// The architecture, where no kernel is given.
    pub arch: Option<String>,
}

impl Intent {
    /// Works out what `args` mean on this machine.
    ///
    /// # Errors
    /// [`Failure`], as dkms gives it: 1 no module named, 2 not understood (or `--all` with a
    /// kernel), 3 `--all` with an architecture, 4 not exactly one kernel, 5 `--all`
    /// where it has no place, 8 an archive of nothing, 16 an empty kernel or architecture.
    pub fn read(args: &Args, here: &Here) -> Result<Self, Failure> {
        let kernels: Vec<_> = args.kernels.iter().map(|word| split_kernel(word)).collect();
        let arches = check_combinations(args, &kernels)?;
        let Some(command) = args.command else { return no_command(args) };
        let module_arg = ModuleArg::read(args, command, here);
        for word in &module_arg.ignored {
            log::warn!("{word} is ignored: the module is named already");
        }
        match command {
            Command::Status => Ok(Self::Status(filter(&module_arg, &kernels, &arches))),
            Command::Cache => cache(args),
            Command::GenerateMok => {
                let target = targets(&kernels, &arches, here)?.swap_remove(0);
                Ok(Self::GenerateMok(Some(target.kernel).filter(|_| !kernels.is_empty())))
            }
            Command::Autoinstall if args.has(OptId::All) && !args.has(OptId::Pending) => {
                check_for_all_kernels(args)?;
                Ok(Self::Autoinstall(None))
            }
            Command::Autoinstall if args.has(OptId::Pending) && kernels.len() < 2 => {
                Ok(Self::FinishPending)
            }
            Command::Autoinstall | Command::KernelPostinst => {
                check_one_kernel(args, command, kernels.len().max(1))?;
                Ok(Self::Autoinstall(Some(targets(&kernels, &arches, here)?.swap_remove(0))))
            }
            Command::KernelPreinst | Command::KernelPrerm => {
                let target = targets(&kernels, &arches, here)?.swap_remove(0);
                Ok(Self::Clear(target, command == Command::KernelPrerm))
            }
            Command::Initramfs => Ok(Self::Initramfs),
            Command::Match => Self::matching(args, module_arg, &kernels, &arches, here),
            Command::Add => {
                Self::change(Verb::Add, command, args, module_arg, &kernels, &arches, here)
            }
            Command::Build => {
                Self::change(Verb::Build, command, args, module_arg, &kernels, &arches, here)
            }
            Command::Install => {
                Self::change(Verb::Install, command, args, module_arg, &kernels, &arches, here)
            }
            Command::Uninstall => {
                Self::change(Verb::Uninstall, command, args, module_arg, &kernels, &arches, here)
            }
            Command::Unbuild => {
                Self::change(Verb::Unbuild, command, args, module_arg, &kernels, &arches, here)
            }
            Command::Remove => {
                Self::change(Verb::Remove, command, args, module_arg, &kernels, &arches, here)
            }
            Command::Ldtarball => {
                match &module_arg.path {
                    None => return refuse(2, "ldtarball needs an archive: dkms ldtarball FILE"),
                    Some(path) if !path.exists() => {
                        return refuse(2, format!("{}: there is no such file", path.display()));
                    }
                    Some(_) => {}
                }
                // What it holds is named in it.
                let module_arg = ModuleArg { module: None, version: None, ..module_arg };
                Self::change(Verb::Add, command, args, module_arg, &kernels, &arches, here)
            }
            Command::Mktarball => {
                let Subject::Module(id) = module_arg.subject(command, here)? else {
                    return refuse(1, "mktarball needs a module: dkms mktarball MODULE/VERSION");
                };
                let wrapping = Wrapping {
                    no_source: args.has(OptId::BinariesOnly),
                    no_builds: args.has(OptId::SourceOnly),
                    archive: args.archive.clone(),
                };
                let kernels = if args.has(OptId::All) {
                    KernelChoice::All
                } else {
                    KernelChoice::These(targets(&kernels, &arches, here)?)
                };
                Ok(Self::Pack(id, kernels, wrapping))
            }
        }
    }

    fn matching(
        args: &Args,
        module_arg: ModuleArg,
        kernels: &[(&str, Option<&str>)],
        arches: &[&str],
        here: &Here,
    ) -> Result<Self, Failure> {
        if !here.is_root {
            return refuse(1, NOT_ROOT);
        }
        check_one_kernel(args, Command::Match, kernels.len().max(1))?;
        let target = targets(kernels, arches, here)?.swap_remove(0);
        let Some(template) = args.template.as_deref().filter(|text| !text.is_empty()) else {
            return refuse(
                1,
                "match needs the kernel to do the same as for: dkms match --templatekernel RELEASE",
            );
        };
        let bad = |why: BadName| Failure::new(1, why.to_string());
        let template: KernelRelease = template.parse().map_err(bad)?;
        if template == target.kernel {
            return refuse(2, format!("{template} is the same kernel as the one that is to match"));
        }
        let module = module_arg.module.map(|name| name.parse().map_err(bad)).transpose()?;
        Ok(Self::Match { template, target, module })
    }

    fn change(
        verb: Verb,
        command: Command,
        args: &Args,
        module_arg: ModuleArg,
        kernels: &[(&str, Option<&str>)],
        arches: &[&str],
        here: &Here,
    ) -> Result<Self, Failure> {
        if args.has(OptId::All) && verb == Verb::Add {
            return refuse(5, "--all cannot be used with add");
        }
        if args.has(OptId::All) && module_arg.is_path() {
            return refuse(5, "--all cannot be used with a path");
        }
        let subject = module_arg.subject(command, here)?;
        if args.has(OptId::All) {
            if matches!(verb, Verb::Build | Verb::Install) {
                check_for_all_kernels(args)?;
            }
            return Ok(Self::Change(verb, subject, KernelChoice::All));
        }
        let mut targets = targets(kernels, arches, here)?;
        if verb == Verb::Add {
            targets.truncate(1); // only for dkms.conf to see (dkms-behaviour 3.2)
        }
        Ok(Self::Change(verb, subject, KernelChoice::These(targets)))
    }
}

/// What `cache` is told to do.
fn cache(args: &Args) -> Result<Intent, Failure> {
    match args.names.as_slice() {
        [] => Ok(Intent::Cache),
        [ModuleWord::Word(word)] if word == "clear" => Ok(Intent::ClearCache),
        _ => refuse(2, "cache takes nothing but clear: dkms cache clear"),
    }
}

/// The checks that dkms makes of any command line, in its order. Gives the architectures.
fn check_combinations<'a>(
    args: &'a Args,
    kernels: &[(&'a str, Option<&'a str>)],
) -> Result<Vec<&'a str>, Failure> {
    if args.has(OptId::BinariesOnly) && args.has(OptId::SourceOnly) {
        return refuse(8, "--binaries-only and --source-only together leave nothing");
    }
    let arches = arches(args, kernels)?;
    if args.has(OptId::All) && !kernels.is_empty() {
        return refuse(2, "--all and -k exclude each other");
    }
    if args.has(OptId::All) && !arches.is_empty() {
        return refuse(3, "--all and -a exclude each other");
    }
    if let Some(command) = args.command.filter(|command| command.is_kernel_hook()) {
        check_one_kernel(args, command, kernels.len())?;
    }
    let empty = kernels.iter().any(|(kernel, _)| kernel.is_empty()) || arches.contains(&"");
    if empty && args.command != Some(Command::Status) {
        return refuse(16, "a kernel release or an architecture is empty");
    }
    Ok(arches)
}

fn check_one_kernel(args: &Args, command: Command, kernels: usize) -> Result<(), Failure> {
    let name = command.name();
    if args.has(OptId::All) {
        return refuse(5, format!("--all cannot be used with {name}"));
    }
    if kernels != 1 {
        return refuse(4, format!("{name} is for one kernel at a time: name it with -k"));
    }
    Ok(())
}

/// Refuses what one kernel alone can have where every kernel is meant.
fn check_for_all_kernels(args: &Args) -> Result<(), Failure> {
    let of_one = [("--kernelsourcedir", &args.kernel_source), ("--config", &args.config)];
    match of_one.into_iter().find(|(_, path)| path.is_some()) {
        Some((option, _)) => refuse(2, format!("{option} is for one kernel: name it with -k")),
        None => Ok(()),
    }
}

fn no_command<T>(args: &Args) -> Result<T, Failure> {
    let word = args.names.iter().find_map(|name| match name {
        ModuleWord::Word(word) => Some(word),
        _ => None,
    });
    let what = word.map_or("no command".into(), |word| format!("{word}: no such command"));
    refuse(2, format!("{what}; the commands are listed by dkms --help"))
}

fn split_kernel(word: &str) -> (&str, Option<&str>) {
    word.split_once('/').map_or((word, None), |(kernel, arch)| (kernel, Some(arch)))
}

/// The architectures as listed: those of `K/A` first, in their order, then those of `-a`.
fn arches<'a>(
    args: &'a Args,
    kernels: &[(&str, Option<&'a str>)],
) -> Result<Vec<&'a str>, Failure> {
    let mut arches: Vec<_> = kernels.iter().filter_map(|(_, arch)| *arch).collect();
    arches.extend(args.arches.iter().map(String::as_str));
    if arches.len() > 1 && arches.len() != kernels.len() {
        return refuse(
            1,
            format!(
                "{} architectures cannot be paired with {} kernels",
                arches.len(),
                kernels.len()
            ),
        );
    }
    Ok(arches)
}

/// Pairs kernels with architectures by their order; a single architecture goes with every kernel.
fn targets(
    kernels: &[(&str, Option<&str>)],
    arches: &[&str],
    here: &Here,
) -> Result<Vec<Target>, Failure> {
    let running = [(here.kernel.as_str(), None)];
    let kernels = if kernels.is_empty() { &running } else { kernels };
    let mut targets = Vec::new();
    for (index, (kernel, _)) in kernels.iter().enumerate() {
        let arch = arches.get(if arches.len() == 1 { 0 } else { index });
        let bad = |why: BadName| Failure::new(1, why.to_string());
        targets.push(Target {
            kernel: kernel.parse().map_err(bad)?,
            arch: arch.map_or(Ok(here.arch.clone()), |arch| arch.parse()).map_err(bad)?,
        });
    }
    Ok(targets)
}

fn filter(module_arg: &ModuleArg, kernels: &[(&str, Option<&str>)], arches: &[&str]) -> Filter {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let arch = |index| arches.get(if arches.len() == 1 { 0 } else { index });
    let paired = kernels.iter().enumerate();
    Filter {
        module: module_arg.module.clone(),
        version: module_arg.version.clone(),
        kernels: paired
            .map(|(index, (kernel, _))| (some(kernel), arch(index).and_then(|it| some(it))))
            .collect(),
        arch: arches.first().filter(|_| kernels.is_empty()).and_then(|arch| some(arch)),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use dkms_engine::trees::Trees;
    use rstest::rstest;

    use super::*;

    fn read(line: &str) -> Result<Intent, Failure> {
        let (args, stop) = Args::parse(line.split(' ').map(OsString::from));
        assert_eq!(stop, None);
        let here = Here {
            kernel: "7.2.13-arch1-1".into(),
            arch: "x86_64".parse().expect("a name"),
            is_root: true,
            trees: Trees::under("/nowhere".as_ref()),
        };
        Intent::read(&args, &here)
    }

    fn on(pairs: &[(&str, &str)]) -> KernelChoice {
        let target = |(kernel, arch): &(&str, &str)| Target {
            kernel: kernel.parse().expect("a name"),
            arch: arch.parse().expect("a name"),
        };
        KernelChoice::These(pairs.iter().map(target).collect())
    }

    #[rstest]
    #[case::positional("install foo/1.0", Verb::Install, on(&[("7.2.13-arch1-1", "x86_64")]))]
    #[case::options("-m foo -v 1.0 build", Verb::Build, on(&[("7.2.13-arch1-1", "x86_64")]))]
    #[case::mixed("remove -m foo/1.0 --all", Verb::Remove, KernelChoice::All)]
    #[case::all_with_headers("install foo/1.0 --all", Verb::Install, KernelChoice::All)]
    #[case::last_version("unbuild foo/0.9 -v 1.0 -k 6.1", Verb::Unbuild, on(&[("6.1", "x86_64")]))]
    #[case::kernel_after("uninstall foo/1.0 -k 6.1/arm64", Verb::Uninstall, on(&[("6.1", "arm64")]))]
    #[case::one_arch_for_all("build foo/1.0 -k 6.1/arm64 -k 6.2", Verb::Build, on(&[("6.1", "arm64"), ("6.2", "arm64")]))]
    #[case::pairs("build foo/1.0 -k 6.1 -k 6.2 -a a -a b", Verb::Build, on(&[("6.1", "a"), ("6.2", "b")]))]
    #[case::one_kernel("add foo/1.0 -k 6.1 -k 6.2", Verb::Add, on(&[("6.1", "x86_64")]))]
    fn reads_a_verb(#[case] line: &str, #[case] verb: Verb, #[case] kernels: KernelChoice) {
        let foo = Subject::Module("foo/1.0".parse().expect("a module"));
        assert_eq!(read(line), Ok(Intent::Change(verb, foo, kernels)));
    }

    #[rstest]
    #[case::listed("cache --json", Intent::Cache)]
    #[case::cleared("cache clear", Intent::ClearCache)]
    fn reads_what_the_cache_is_for(#[case] line: &str, #[case] intent: Intent) {
        assert_eq!(read(line), Ok(intent));
    }

    #[rstest]
    #[case::no_module("build", 1)]
    #[case::cache_of_what("cache foo/1.0", 2)]
    #[case::no_version("remove foo", 1)]
    #[case::bad_module("add -m .. -v 1", 1)]
    #[case::unpaired("build foo/1 -k 6.1 -a a -a b", 1)]
    #[case::all_and_kernel("remove foo/1 --all -k 6.1", 2)]
    #[case::no_command("foo/1", 2)]
    #[case::no_archive("ldtarball", 2)]
    #[case::archive_that_is_not_there("ldtarball foo.dkms.tar.gz", 2)]
    #[case::pack_what("mktarball foo", 1)]
    #[case::no_such_path("add ./foo-1", 2)]
    #[case::no_such_absolute_path("add /nowhere/foo-1", 1)]
    #[case::path_where_none_is_taken("remove ./foo-1", 1)]
    #[case::all_and_arch("remove foo/1 --all -a a", 3)]
    #[case::status_too("status --all -k 6.1", 2)]
    #[case::hook_without_kernel("kernel_prerm", 4)]
    #[case::hook_with_two("kernel_postinst -k 6.1 -k 6.2", 4)]
    #[case::hook_with_all("kernel_preinst --all", 5)]
    #[case::two_kernels("autoinstall -k 6.1 -k 6.2", 4)]
    #[case::all_and_add("add foo/1.0 --all", 5)]
    #[case::all_and_path("install ./foo-1 --all", 5)]
    #[case::all_and_archive("build --archive foo.tar --all", 5)]
    #[case::all_and_kernel_hook("kernel_postinst --all", 5)]
    #[case::install_for_all_and_kernel("install foo/1.0 --all -k 6.1", 2)]
    #[case::autoinstall_for_all_and_kernel("autoinstall --all -k 6.1", 2)]
    #[case::headers_of_all("build foo/1.0 --all --kernelsourcedir /nowhere", 2)]
    #[case::configuration_of_all("autoinstall --all --config /nowhere", 2)]
    #[case::match_without_template("match", 1)]
    #[case::match_with_itself("match --templatekernel=6.1 -k 6.1", 2)]
    #[case::match_for_two("match --templatekernel 6 -k 6.1 -k 6.2", 4)]
    #[case::match_for_all("match --all --templatekernel 6", 5)]
    #[case::nothing_left("mktarball foo/1 --binaries-only --source-only --all -k 6.1", 8)]
    #[case::empty_arch("build foo/1 -k 6.1/", 16)]
    #[case::empty_kernel("build foo/1 -k /a", 16)]
    fn refuses_as_dkms_does(#[case] line: &str, #[case] code: u8) {
        assert_eq!(read(line).map_err(|refusal| refusal.code), Err(code), "{line}");
    }

    #[test]
    fn reads_the_rest() {
        assert_eq!(read("autoinstall --debts"), Ok(Intent::FinishPending));
        let target = Target {
            kernel: "6.1".parse().expect("a name"),
            arch: "x86_64".parse().expect("a name"),
        };
        assert_eq!(read("autoinstall -k 6.1"), Ok(Intent::Autoinstall(Some(target.clone()))));
        assert_eq!(read("autoinstall --all"), Ok(Intent::Autoinstall(None)));
        assert_eq!(read("kernel_postinst -k 6.1"), Ok(Intent::Autoinstall(Some(target.clone()))));
        assert_eq!(read("kernel_preinst -k 6.1"), Ok(Intent::Clear(target.clone(), false)));
        assert_eq!(read("kernel_prerm -k 6.1"), Ok(Intent::Clear(target.clone(), true)));
        assert_eq!(read("generate_mok"), Ok(Intent::GenerateMok(None)));
        let kernel = Some(target.kernel.clone());
        assert_eq!(read("generate_mok -k 6.1"), Ok(Intent::GenerateMok(kernel)));
        let template = "6.0".parse().expect("a name");
        let module = Some("foo".parse().expect("a name"));
        let wanted = Intent::Match { template, target, module };
        assert_eq!(read("match --templatekernelX=6.0 foo -k 6.1"), Ok(wanted));
        assert_eq!(read("initramfs --dry-run"), Ok(Intent::Initramfs));
        assert_eq!(read("status"), Ok(Intent::Status(Filter::default())));
        let filter = Filter {
            module: Some("foo*".into()),
            version: Some("1".into()),
            kernels: vec![(Some("6.*".into()), None)],
            arch: None,
        };
        assert_eq!(read("status -m foo* -v 1 -k 6.*"), Ok(Intent::Status(filter)));
    }
}
