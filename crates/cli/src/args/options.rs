//! The options: how each is spelled, what it takes and what it means. The parser, `--help`,
//! completion and the man page all read this one table.

use crate::args::commands::Command;
use crate::args::commands::Command::{
    Add, Autoinstall, Build, Cache, Install, KernelPostinst, KernelPreinst, KernelPrerm, Ldtarball,
    Match, Mktarball, Remove, Status, Unbuild, Uninstall,
};

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Opt {
    /// Which one.
    pub id: OptId,
    /// Its name, typed after two dashes; empty if it has only a letter.
    pub long: &'static str,
    /// Its letter, typed after one dash.
    pub short: Option<char>,
    /// Whether its name may go on before the `=`: dkms compares some names by their beginning
    /// only, and scripts write `--kernelversion`.
    pub loose: bool,
    /// What its value is called; nothing if it takes none.
    pub value: Option<&'static str>,
    /// The commands that it means something to; none if to all. Others take it and ignore it.
    pub of: &'static [Command],
    /// What it does, in one line; empty keeps it out of `--help`.
    pub help: &'static str,
}

/// The meaning of an option; [`OPTIONS`] says it in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptId {
    Module,
    Version,
    Kernel,
    Arch,
    All,
    Force,
    ForceVersion,
    Conf,
    Config,
    KernelSource,
    Directive,
    Jobs,
    NoDepmod,
    Modprobe,
    Symlink,
    Template,
    Archive,
    BinariesOnly,
    SourceOnly,
    RpmSafeUpgrade,
    DkmsTree,
    SourceTree,
    InstallTree,
    Root,
    DryRun,
    Json,
    Pending,
    Timings,
    Verbose,
    Quiet,
    Debug,
    Deprecated,
    PrintVersion,
    Help,
}

const SOURCED: &[Command] = &[Add, Build, Install, Autoinstall, Match, KernelPostinst];
const BUILDING: &[Command] = &[Build, Install, Autoinstall, Match, KernelPostinst];
const PLACING: &[Command] = &[Install, Autoinstall, Match, KernelPostinst];
const ONE_MODULE: &[Command] = &[Add, Build, Install, Uninstall, Unbuild, Remove, Mktarball];
const FOR_ALL: &[Command] = &[Build, Install, Autoinstall, Uninstall, Unbuild, Remove, Mktarball];
const INDEXING: &[Command] = &[
    Install,
    Uninstall,
    Unbuild,
    Remove,
    Autoinstall,
    Match,
    KernelPreinst,
    KernelPostinst,
    KernelPrerm,
];

/// All options, in the order in which the parser tries them and `--help` lists them. A name that
/// begins like a loose one stands before it: `--archive` is not `--arch`.
pub const OPTIONS: &[Opt] = &[
    opt(OptId::Module, "module", "the module, or MODULE/VERSION")
        .short('m')
        .loose()
        .takes("MODULE"),
    opt(OptId::Version, "", "the module's version").short('v').takes("VERSION"),
    opt(OptId::Kernel, "kernelver", "the kernel release, or RELEASE/ARCH; may be repeated")
        .short('k')
        .loose()
        .takes("RELEASE"),
    opt(OptId::Archive, "archive", "the archive to read or to write")
        .loose()
        .takes("FILE")
        .of(&[Mktarball, Ldtarball, Add, Build, Install]),
    opt(OptId::Arch, "arch", "the architecture; may be repeated, one for each kernel")
        .short('a')
        .loose()
        .takes("ARCH"),
    opt(OptId::All, "all", "all kernels: with headers (build, install, autoinstall), or built for")
        .of(FOR_ALL),
    opt(OptId::Force, "force", "do it even if it is done, or if something speaks against it"),
    opt(OptId::ForceVersion, "force-version-override", "place it over a newer version of the same")
        .of(PLACING),
    opt(OptId::Conf, "", "use this file in place of the module's own dkms.conf")
        .short('c')
        .takes("FILE")
        .of(ONE_MODULE),
    opt(OptId::Config, "config", "the kernel's configuration, if not the one in its headers")
        .loose()
        .takes("FILE")
        .of(BUILDING),
    opt(OptId::KernelSource, "kernelsourcedir", "the kernel's headers, if not in its directory")
        .loose()
        .takes("DIR")
        .of(BUILDING),
    opt(
        OptId::Directive,
        "directive",
        "set a directive after all dkms.conf files; may be repeated",
    )
    .loose()
    .takes("NAME=VALUE")
    .of(SOURCED),
    opt(OptId::Jobs, "", "how many jobs run at a time; 0 for one for each processor")
        .short('j')
        .takes("NUMBER")
        .of(BUILDING),
    opt(OptId::NoDepmod, "no-depmod", "leave modules.dep as it is").of(INDEXING),
    opt(OptId::Modprobe, "modprobe-on-install", "load what this machine has devices for")
        .of(PLACING),
    opt(OptId::Symlink, "symlink-modules", "place links to the objects, not copies").of(PLACING),
    opt(OptId::Template, "templatekernel", "the kernel to do the same as for")
        .loose()
        .takes("RELEASE")
        .of(&[Match]),
    opt(OptId::BinariesOnly, "binaries-only", "leave the source out of the archive")
        .of(&[Mktarball]),
    opt(OptId::SourceOnly, "source-only", "leave what was built out of the archive")
        .of(&[Mktarball]),
    opt(OptId::RpmSafeUpgrade, "rpm_safe_upgrade", "keep the module over an upgrade of its rpm")
        .of(&[Add, Install, Remove]),
    opt(OptId::DkmsTree, "dkmstree", "the dkms tree, if not /var/lib/dkms").loose().takes("DIR"),
    opt(OptId::SourceTree, "sourcetree", "where sources are, if not in /usr/src")
        .loose()
        .takes("DIR"),
    opt(OptId::InstallTree, "installtree", "where kernels are, if not in /lib/modules")
        .loose()
        .takes("DIR"),
    opt(OptId::Root, "root", "work on the machine whose / is DIR").takes("DIR"),
    opt(OptId::DryRun, "dry-run", "say what would be done and why, and do nothing"),
    opt(OptId::Json, "json", "print JSON").of(&[Status, Cache]),
    opt(OptId::Pending, "debts", "only finish what an interrupted run left to do")
        .of(&[Autoinstall]),
    opt(OptId::Timings, "timings", "write a page that shows what took how long")
        .takes("FILE")
        .of(BUILDING),
    opt(OptId::Verbose, "verbose", "print the compilers' output and the commands that are run"),
    opt(OptId::Quiet, "quiet", "print nothing").short('q'),
    opt(OptId::PrintVersion, "version", "print the version").short('V'),
    opt(OptId::Help, "help", "print this").short('h'),
    opt(OptId::Debug, "debug", ""),
    opt(OptId::Deprecated, "no-initrd", ""),
    opt(OptId::Deprecated, "no-clean-kernel", ""),
    opt(OptId::Deprecated, "no-prepare-kernel", ""),
];

const fn opt(id: OptId, long: &'static str, help: &'static str) -> Opt {
    Opt { id, long, short: None, loose: false, value: None, of: &[], help }
}

impl Opt {
    const fn short(self, letter: char) -> Self {
        Self { short: Some(letter), ..self }
    }

    const fn loose(self) -> Self {
        Self { loose: true, ..self }
    }

    const fn takes(self, value: &'static str) -> Self {
        Self { value: Some(value), ..self }
    }

    const fn of(self, of: &'static [Command]) -> Self {
        Self { of, ..self }
    }

    /// The option that an argument is, and the value that stands in the same argument after `=`.
    /// dkms takes that from long names alone: `-j4` and `-m=foo` are no options.
    #[must_use]
    pub fn from_argument(argument: &str) -> Option<(&'static Self, Option<&str>)> {
        OPTIONS.iter().find_map(|opt| Some((opt, opt.spelled(argument)?)))
    }

    /// Whether an argument is this option; then, what follows its `=`.
    fn spelled<'a>(&self, argument: &'a str) -> Option<Option<&'a str>> {
        if let Some(name) = argument.strip_prefix("--") {
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (name, None),
            };
            let fits = if self.loose { name.starts_with(self.long) } else { name == self.long };
            return (fits && !self.long.is_empty() && (self.value.is_some() || value.is_none()))
                .then_some(value);
        }
        let letter = argument.strip_prefix('-')?;
        self.short.is_some_and(|short| letter == short.to_string()).then_some(None)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::short("-m", OptId::Module, None)]
    #[case::long("--module", OptId::Module, None)]
    #[case::with_value("--module=foo", OptId::Module, Some("foo"))]
    #[case::with_two_signs("--directive=A=b", OptId::Directive, Some("A=b"))]
    #[case::empty("--module=", OptId::Module, Some(""))]
    #[case::longer("--modules", OptId::Module, None)]
    #[case::alias("--kernelversion=6.1", OptId::Kernel, Some("6.1"))]
    #[case::not_a_kernel("--kernelsourcedir", OptId::KernelSource, None)]
    #[case::archive_first("--archXYZ", OptId::Arch, None)]
    #[case::archive("--archives", OptId::Archive, None)]
    #[case::flag("--all", OptId::All, None)]
    #[case::exact("--force-version-override", OptId::ForceVersion, None)]
    #[case::modprobe("--modprobe-on-install", OptId::Modprobe, None)]
    #[case::underscores("--rpm_safe_upgrade", OptId::RpmSafeUpgrade, None)]
    #[case::ours("--root=/mnt", OptId::Root, Some("/mnt"))]
    fn knows_every_spelling(
        #[case] argument: &str,
        #[case] id: OptId,
        #[case] value: Option<&str>,
    ) {
        let found = Opt::from_argument(argument).map(|(opt, value)| (opt.id, value));
        assert_eq!(found, Some((id, value)));
    }

    #[rstest]
    #[case::joined("-j4")]
    #[case::short_with_sign("-m=foo")]
    #[case::flag_with_value("--all=yes")]
    #[case::flag_that_goes_on("--alls")]
    #[case::letters("-qV")]
    #[case::dash("-")]
    #[case::dashes("--")]
    #[case::unknown("--frobnicate")]
    fn knows_no_other(#[case] argument: &str) {
        assert!(Opt::from_argument(argument).is_none());
    }

    #[test]
    fn every_option_is_found_under_its_own_name() {
        for opt in OPTIONS {
            let long = format!("--{}", opt.long);
            let short = opt.short.map(|letter| format!("-{letter}"));
            let names = short.into_iter().chain((!opt.long.is_empty()).then_some(long));
            for name in names {
                let found = Opt::from_argument(&name).map(|(opt, _)| opt.id);
                assert_eq!(found, Some(opt.id), "{name}");
            }
        }
    }
}
