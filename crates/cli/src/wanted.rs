//! What the command line means: the checks that dkms makes before it looks at anything, in its
//! order and with its exit codes.

use dkms_engine::names::{Arch, KernelRelease, ModuleId};

use crate::typed::Typed;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Print the version.
    Version,
    /// List modules.
    Status(Filter),
    /// Install every willing module for a kernel.
    Autoinstall(Target),
    /// Finish what interrupted runs left.
    PayDebts,
    /// Do something to one module.
    Change(Deed, ModuleId, Kernels),
}

/// What is done to a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Register it.
    Add,
    /// Compile it.
    Build,
    /// Place it.
    Install,
    /// Take it out of the kernel.
    Uninstall,
    /// Forget what was built.
    Unbuild,
    /// Forget the module.
    Remove,
}

/// A kernel and the architecture to build for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The kernel.
    pub kernel: KernelRelease,
    /// The architecture.
    pub arch: Arch,
}

/// For which kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kernels {
    /// All that the module is built for.
    All,
    /// These, in order.
    These(Vec<Target>),
}

/// Which modules are listed. Empty and `None` mean any; all are glob patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The module's name.
    pub module: Option<String>,
    /// The module's version.
    pub version: Option<String>,
    /// Kernel releases with the architecture that goes with each; the list repeats for each.
    pub kernels: Vec<(String, Option<String>)>,
    /// The architecture, where no kernel is given.
    pub arch: Option<String>,
}

/// Why nothing is done, with dkms's exit code (dkms-behaviour 9).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The exit code.
    pub code: u8,
    /// What is wrong, and what to do about it.
    pub message: String,
}

/// The machine that a command without `-k` and `-a` means.
#[derive(Debug, Clone)]
pub struct Here {
    /// What `uname -r` prints.
    pub kernel: String,
    /// What `uname -m` prints.
    pub arch: Arch,
}

const COMMANDS: [&str; 15] = [
    "add",
    "remove",
    "build",
    "unbuild",
    "install",
    "uninstall",
    "match",
    "autoinstall",
    "mktarball",
    "ldtarball",
    "status",
    "generate_mok",
    "kernel_preinst",
    "kernel_postinst",
    "kernel_prerm",
];

fn refuse<T>(code: u8, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

impl Wanted {
    /// Works out what `typed` means on this machine.
    ///
    /// # Errors
    /// [`Refusal`], as dkms gives it: 1 no module named, 2 not understood or not there yet (or
    /// `--all` with a kernel), 3 `--all` with an architecture, 4 two commands or two kernels,
    /// 5 `--all` where it has no place, 16 an empty kernel or architecture.
    pub fn read(typed: &Typed, here: &Here) -> Result<Self, Refusal> {
        if typed.print_version {
            return Ok(Self::Version);
        }
        let (command, name) = words(&typed.words)?;
        if let Some(option) = typed.later.given() {
            return refuse(2, format!("{option} is not there yet"));
        }
        let kernels: Vec<_> = typed.kernel.iter().map(|word| split_kernel(word.trim())).collect();
        let arches = arches(typed, &kernels)?;
        if typed.all && !kernels.is_empty() && command != "status" {
            return refuse(2, "--all and -k exclude each other");
        }
        if typed.all && !arches.is_empty() && command != "status" {
            return refuse(3, "--all and -a exclude each other");
        }
        if kernels.iter().any(|(kernel, arch)| kernel.is_empty() || arch == &Some(""))
            || arches.contains(&"")
        {
            return refuse(16, "a kernel release or an architecture is empty");
        }
        let (module, version) = module(typed, name);
        if command == "status" {
            return Ok(Self::Status(filter(module, version, &kernels, &arches)));
        }
        let Some(deed) = deed(command) else {
            return autoinstall(typed, &kernels, &arches, here);
        };
        if typed.all && matches!(deed, Deed::Add | Deed::Build | Deed::Install) {
            return refuse(5, format!("--all cannot be used with {command}"));
        }
        let (Some(module), Some(version)) = (module, version) else {
            return refuse(
                1,
                format!("{command} needs a module and its version: dkms {command} MODULE/VERSION"),
            );
        };
        let id: ModuleId =
            format!("{module}/{version}").parse().or_else(|why| refuse(1, format!("{why}")))?;
        let kernels = if typed.all {
            Kernels::All
        } else {
            let mut targets = targets(&kernels, &arches, here)?;
            if deed == Deed::Add {
                targets.truncate(1); // only for dkms.conf to see (dkms-behaviour 3.2)
            }
            Kernels::These(targets)
        };
        Ok(Self::Change(deed, id, kernels))
    }
}

/// The command, and the first other word. As in dkms the first word that is a command is it.
fn words(words: &[String]) -> Result<(&str, Option<&str>), Refusal> {
    let mut command = None;
    let mut name = None;
    for word in words.iter().map(|word| word.trim()) {
        if COMMANDS.contains(&word) {
            if let Some(first) = command.replace(word) {
                return refuse(4, format!("{first} and {word} are two commands"));
            }
        } else if name.is_none() {
            name = Some(word);
        } else {
            log::warn!("{word} is ignored: the module is {}", name.unwrap_or_default());
        }
    }
    let Some(command) = command else {
        let what = name.map_or("no command".into(), |word| format!("{word}: no such command"));
        return refuse(2, format!("{what}; the commands are listed by dkms --help"));
    };
    if deed(command).is_none() && !["status", "autoinstall"].contains(&command) {
        return refuse(2, format!("{command} is not there yet"));
    }
    if let Some(path) = name.filter(|name| is_path(name)) {
        return refuse(2, format!("{path}: adding from a path or an archive is not there yet"));
    }
    Ok((command, name))
}

fn deed(command: &str) -> Option<Deed> {
    Some(match command {
        "add" => Deed::Add,
        "build" => Deed::Build,
        "install" => Deed::Install,
        "uninstall" => Deed::Uninstall,
        "unbuild" => Deed::Unbuild,
        "remove" => Deed::Remove,
        _ => return None,
    })
}

/// Whether a word is a path or an archive by its looks. dkms looks for such a file instead, so
/// that one named like a module takes the module's place.
fn is_path(word: &str) -> bool {
    let archive = [".tar", ".tar.gz", ".tar.xz", ".tar.zst", ".tgz", ".rpm", "dkms.conf"];
    word.starts_with(['/', '.'])
        || word.matches('/').count() > 1
        || archive.iter().any(|end| word.ends_with(end))
}

/// The module and version; `-m M/V` and a positional `M/V` name both, and `-v` comes last.
fn module<'a>(typed: &'a Typed, name: Option<&'a str>) -> (Option<&'a str>, Option<&'a str>) {
    let named = typed.module.as_deref().or(name).map(str::trim).filter(|name| !name.is_empty());
    let (module, version) = match named.and_then(|name| name.split_once('/')) {
        Some((module, version)) => (Some(module), Some(version)),
        None => (named, None),
    };
    let given = typed.version.as_deref().map(str::trim);
    (module, given.or(version).filter(|version| !version.is_empty()))
}

fn split_kernel(word: &str) -> (&str, Option<&str>) {
    word.split_once('/').map_or((word, None), |(kernel, arch)| (kernel, Some(arch)))
}

/// The architectures as listed: those of `K/A` first, in their order, then those of `-a`.
fn arches<'a>(
    typed: &'a Typed,
    kernels: &[(&str, Option<&'a str>)],
) -> Result<Vec<&'a str>, Refusal> {
    let mut arches: Vec<_> = kernels.iter().filter_map(|(_, arch)| *arch).collect();
    arches.extend(typed.arch.iter().map(|arch| arch.trim()));
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
) -> Result<Vec<Target>, Refusal> {
    let running = [(here.kernel.as_str(), None)];
    let kernels = if kernels.is_empty() { &running } else { kernels };
    let mut targets = Vec::new();
    for (index, (kernel, _)) in kernels.iter().enumerate() {
        let arch = arches.get(if arches.len() == 1 { 0 } else { index });
        let bad = |why| Refusal { code: 1, message: format!("{why}") };
        targets.push(Target {
            kernel: kernel.parse().map_err(bad)?,
            arch: arch.map_or(Ok(here.arch.clone()), |arch| arch.parse()).map_err(bad)?,
        });
    }
    Ok(targets)
}

fn autoinstall(
    typed: &Typed,
    kernels: &[(&str, Option<&str>)],
    arches: &[&str],
    here: &Here,
) -> Result<Wanted, Refusal> {
    if typed.all {
        return refuse(5, "--all cannot be used with autoinstall");
    }
    if kernels.len() > 1 || arches.len() > 1 {
        return refuse(4, "autoinstall is for one kernel at a time");
    }
    if typed.debts {
        return Ok(Wanted::PayDebts);
    }
    let target = targets(kernels, arches, here)?.swap_remove(0);
    Ok(Wanted::Autoinstall(target))
}

fn filter(
    module: Option<&str>,
    version: Option<&str>,
    kernels: &[(&str, Option<&str>)],
    arches: &[&str],
) -> Filter {
    let arch = |index| arches.get(if arches.len() == 1 { 0 } else { index });
    let paired = kernels.iter().enumerate();
    Filter {
        module: module.map(str::to_owned),
        version: version.map(str::to_owned),
        kernels: paired
            .map(|(index, (kernel, _))| (kernel.to_string(), arch(index).map(|it| it.to_string())))
            .collect(),
        arch: arches.first().filter(|_| kernels.is_empty()).map(|arch| arch.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rstest::rstest;

    use super::*;

    fn read(line: &str) -> Result<Wanted, Refusal> {
        let words = ["dkms"].into_iter().chain(line.split(' '));
        let here =
            Here { kernel: "7.2.13-arch1-1".into(), arch: "x86_64".parse().expect("a name") };
        Wanted::read(&Typed::try_parse_from(words).expect("words clap takes"), &here)
    }

    fn on(pairs: &[(&str, &str)]) -> Kernels {
        let target = |(kernel, arch): &(&str, &str)| Target {
            kernel: kernel.parse().expect("a name"),
            arch: arch.parse().expect("a name"),
        };
        Kernels::These(pairs.iter().map(target).collect())
    }

    #[rstest]
    #[case::positional("install foo/1.0", Deed::Install, on(&[("7.2.13-arch1-1", "x86_64")]))]
    #[case::options("-m foo -v 1.0 build", Deed::Build, on(&[("7.2.13-arch1-1", "x86_64")]))]
    #[case::mixed("remove -m foo/1.0 --all", Deed::Remove, Kernels::All)]
    #[case::last_version("unbuild foo/0.9 -v 1.0 -k 6.1", Deed::Unbuild, on(&[("6.1", "x86_64")]))]
    #[case::kernel_after("uninstall foo/1.0 -k 6.1/arm64", Deed::Uninstall, on(&[("6.1", "arm64")]))]
    #[case::one_arch_for_all("build foo/1.0 -k 6.1/arm64 -k 6.2", Deed::Build, on(&[("6.1", "arm64"), ("6.2", "arm64")]))]
    #[case::pairs("build foo/1.0 -k 6.1 -k 6.2 -a a -a b", Deed::Build, on(&[("6.1", "a"), ("6.2", "b")]))]
    #[case::one_kernel("add foo/1.0 -k 6.1 -k 6.2", Deed::Add, on(&[("6.1", "x86_64")]))]
    fn reads_a_deed(#[case] line: &str, #[case] deed: Deed, #[case] kernels: Kernels) {
        let id = "foo/1.0".parse().expect("a module");
        assert_eq!(read(line), Ok(Wanted::Change(deed, id, kernels)));
    }

    #[rstest]
    #[case::no_module("build", 1)]
    #[case::no_version("remove foo", 1)]
    #[case::bad_module("add -m .. -v 1", 1)]
    #[case::unpaired("build foo/1 -k 6.1 -a a -a b", 1)]
    #[case::all_and_kernel("remove foo/1 --all -k 6.1", 2)]
    #[case::no_command("foo/1", 2)]
    #[case::not_yet("mktarball foo/1", 2)]
    #[case::option_not_yet("build foo/1 --config x", 2)]
    #[case::path("add ./foo-1", 2)]
    #[case::all_and_arch("remove foo/1 --all -a a", 3)]
    #[case::two_commands("add remove", 4)]
    #[case::two_kernels("autoinstall -k 6.1 -k 6.2", 4)]
    #[case::all_and_install("install foo/1 --all", 5)]
    #[case::all_and_autoinstall("autoinstall --all", 5)]
    #[case::empty_arch("build foo/1 -k 6.1/", 16)]
    #[case::empty_kernel("build foo/1 -k /a", 16)]
    fn refuses_as_dkms_does(#[case] line: &str, #[case] code: u8) {
        assert_eq!(read(line).map_err(|refusal| refusal.code), Err(code), "{line}");
    }

    #[test]
    fn reads_the_rest() {
        assert_eq!(read("--version"), Ok(Wanted::Version));
        assert_eq!(read("autoinstall --debts"), Ok(Wanted::PayDebts));
        let target = Target {
            kernel: "6.1".parse().expect("a name"),
            arch: "x86_64".parse().expect("a name"),
        };
        assert_eq!(read("autoinstall -k 6.1"), Ok(Wanted::Autoinstall(target)));
        assert_eq!(read("status"), Ok(Wanted::Status(Filter::default())));
        let filter = Filter {
            module: Some("foo*".into()),
            version: Some("1".into()),
            kernels: vec![("6.*".into(), None)],
            arch: None,
        };
        assert_eq!(read("status -m foo* -v 1 -k 6.*"), Ok(Wanted::Status(filter)));
    }
}
