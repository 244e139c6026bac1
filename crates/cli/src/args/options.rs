//! The table of options, used by the parser, `--help`, completion and the test of the man page.

use crate::args::commands::Command;
use crate::args::commands::Command::{
    Add, Autoinstall, Build, Cache, Explain, GenerateMok, Install, KernelPostinst, KernelPreinst,
    KernelPrerm, Ldtarball, Lint, Match, Mktarball, Preflight, Remove, Status, Unbuild, Uninstall,
    Verify,
};

/// The spelling and help of an option.
#[derive(Debug, Clone, Copy)]
pub struct Opt {
    /// The option that this entry describes. Two entries may describe the same option.
    pub id: OptId,
    /// The long name, without dashes; empty if there is none.
    pub long: &'static str,
    /// The short name, without a dash.
    pub short: Option<char>,
    /// Whether every name that starts with `long` is accepted. dkms accepts `--kernelversion` as
    /// `--kernelver`, for example, and scripts rely on that.
    pub loose: bool,
    /// The placeholder for the value in the help; `None` if the option takes no value.
    pub value: Option<&'static str>,
    /// The commands that use the option; empty if all do. Other commands ignore the option.
    pub of: &'static [Command],
    /// The description, in one line. If it is empty, `--help` omits the option.
    pub help: &'static str,
}

/// An option of `dkms`. [`OPTIONS`] describes all of them.
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
    Strict,
    Pending,
    Upgrade,
    NoDownload,
    AllowOnce,
    Idle,
    Boot,
    Timings,
    Verbose,
    Quiet,
    Debug,
    Deprecated,
    PrintVersion,
    Help,
}

const ON_MODULE: &[Command] = &[Add, Build, Install, Uninstall, Unbuild, Remove, Mktarball];
const NAMES_MODULE: &[Command] =
    &[Add, Build, Install, Uninstall, Unbuild, Remove, Mktarball, Status, Verify, Explain, Match];
const NAMES_VERSION: &[Command] =
    &[Add, Build, Install, Uninstall, Unbuild, Remove, Mktarball, Status, Verify, Explain];
const NAMES_KERNELS: &[Command] = &[
    Add,
    Build,
    Install,
    Uninstall,
    Unbuild,
    Remove,
    Mktarball,
    Status,
    Verify,
    Explain,
    Autoinstall,
    GenerateMok,
];
const NAMES_ONE_KERNEL: &[Command] = &[Lint, Match, KernelPreinst, KernelPostinst, KernelPrerm];
const CAN_FORCE: &[Command] = &[Add, Build, Install, Ldtarball, Autoinstall, Match, KernelPostinst];
const READS_CONF: &[Command] = &[Add, Build, Install, Autoinstall, Match, KernelPostinst];
const BUILDS: &[Command] = &[Build, Install, Autoinstall, Match, KernelPostinst];
const INSTALLS: &[Command] = &[Install, Autoinstall, Match, KernelPostinst];
const RUNS_DEPMOD: &[Command] = &[
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

/// All options, in the order in which the parser tries them and `--help` lists them. A longer name
/// precedes the loose name that it starts with: `--archive` is not `--arch`.
pub const OPTIONS: &[Opt] = &[
    opt(OptId::Module, "module", "the module, or MODULE/VERSION")
        .short('m')
        .loose()
        .takes("MODULE")
        .of(NAMES_MODULE),
    opt(OptId::Version, "", "the module's version").short('v').takes("VERSION").of(NAMES_VERSION),
    kernel("the kernel release, or RELEASE/ARCH; repeatable").of(NAMES_KERNELS),
    kernel("the kernel release, or RELEASE/ARCH").of(NAMES_ONE_KERNEL),
    archive("the archive to write").of(&[Mktarball]),
    archive("the archive to read").of(&[Ldtarball, Add, Build, Install]),
    arch("the architecture; give it once, or once for each -k").of(NAMES_KERNELS),
    arch("the architecture").of(NAMES_ONE_KERNEL),
    opt(OptId::All, "all", "every installed kernel that has headers").of(&[
        Build,
        Install,
        Autoinstall,
    ]),
    opt(OptId::All, "all", "every kernel that the module is built for")
        .of(&[Uninstall, Unbuild, Remove, Mktarball]),
    opt(OptId::Force, "force", "redo finished work and override safety checks").of(CAN_FORCE),
    opt(
        OptId::ForceVersion,
        "force-version-override",
        "install even if a newer version is installed",
    )
    .of(INSTALLS),
    opt(OptId::Conf, "", "read this file instead of the module's dkms.conf")
        .short('c')
        .takes("FILE")
        .of(ON_MODULE),
    opt(OptId::Config, "config", "the kernel's configuration, if it is not in the headers")
        .loose()
        .takes("FILE")
        .of(BUILDS),
    opt(
        OptId::KernelSource,
        "kernelsourcedir",
        "the kernel's headers (default: /usr/lib/modules/RELEASE/build)",
    )
    .loose()
    .takes("DIR")
    .of(BUILDS),
    opt(OptId::Directive, "directive", "override a dkms.conf directive; repeatable")
        .loose()
        .takes("NAME=VALUE")
        .of(READS_CONF),
    opt(OptId::Jobs, "", "the maximum number of parallel jobs; 0 means one per processor")
        .short('j')
        .takes("NUMBER")
        .of(BUILDS),
    opt(OptId::NoDepmod, "no-depmod", "do not run depmod").of(RUNS_DEPMOD),
    opt(
        OptId::Modprobe,
        "modprobe-on-install",
        "after installing for the running kernel, load needed modules",
    )
    .of(INSTALLS),
    opt(OptId::Symlink, "symlink-modules", "install symbolic links instead of copies").of(INSTALLS),
    opt(OptId::Template, "templatekernel", "the kernel to take the list of modules from")
        .loose()
        .takes("RELEASE")
        .of(&[Match]),
    opt(OptId::BinariesOnly, "binaries-only", "omit the source").of(&[Mktarball]),
    opt(OptId::SourceOnly, "source-only", "omit the builds").of(&[Mktarball]),
    opt(OptId::RpmSafeUpgrade, "rpm_safe_upgrade", "keep the module across its RPM's upgrade")
        .of(&[Add, Install, Remove]),
    opt(OptId::Json, "json", "print JSON").of(&[Status, Verify, Explain, Cache, Preflight, Lint]),
    opt(OptId::Strict, "strict", "also fail if there are warnings").of(&[Lint]),
    opt(OptId::Pending, "pending", "only finish the pending work of interrupted runs")
        .of(&[Autoinstall]),
    opt(OptId::Upgrade, "upgrade", "check the packages of the next pacman -Syu").of(&[Preflight]),
    opt(OptId::NoDownload, "no-download", "use only packages in pacman's cache").of(&[Preflight]),
    opt(
        OptId::AllowOnce,
        "allow-once",
        "do not abort the next transaction if modules would be lost",
    )
    .of(&[Preflight]),
    opt(OptId::Idle, "idle", "use the CPU and the disk only while they are idle").of(&[Preflight]),
    opt(OptId::Boot, "boot", "check only the kernel that the machine boots by default")
        .of(&[Verify]),
    opt(OptId::Timings, "timings", "write an HTML timeline of the run to this file")
        .takes("FILE")
        .of(BUILDS),
    opt(OptId::DkmsTree, "dkmstree", "the dkms tree (default: /var/lib/dkms)").loose().takes("DIR"),
    opt(OptId::SourceTree, "sourcetree", "the source tree (default: /usr/src)")
        .loose()
        .takes("DIR"),
    opt(
        OptId::InstallTree,
        "installtree",
        "the kernel module directory (default: /usr/lib/modules)",
    )
    .loose()
    .takes("DIR"),
    opt(OptId::Root, "root", "work on the system rooted at DIR").takes("DIR"),
    opt(OptId::DryRun, "dry-run", "print what would be done and why, without doing it"),
    opt(OptId::Verbose, "verbose", "also print each step as it begins, and compiler output"),
    opt(OptId::Quiet, "quiet", "print nothing").short('q'),
    opt(
        OptId::PrintVersion,
        "version",
        "print the version of dkms that this program is compatible with",
    )
    .short('V'),
    opt(OptId::Help, "help", "print help; after a command, help for that command").short('h'),
    opt(OptId::Debug, "debug", ""),
    opt(OptId::Deprecated, "no-initrd", ""),
    opt(OptId::Deprecated, "no-clean-kernel", ""),
    opt(OptId::Deprecated, "no-prepare-kernel", ""),
];

const fn opt(id: OptId, long: &'static str, help: &'static str) -> Opt {
    Opt { id, long, short: None, loose: false, value: None, of: &[], help }
}

const fn kernel(help: &'static str) -> Opt {
    opt(OptId::Kernel, "kernelver", help).short('k').loose().takes("RELEASE")
}

const fn arch(help: &'static str) -> Opt {
    opt(OptId::Arch, "arch", help).short('a').loose().takes("ARCH")
}

const fn archive(help: &'static str) -> Opt {
    opt(OptId::Archive, "archive", help).loose().takes("FILE")
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

    /// Returns true if the command uses this option.
    #[must_use]
    pub fn is_for(&self, command: Command) -> bool {
        self.of.is_empty() || self.of.contains(&command)
    }

    const fn of(self, of: &'static [Command]) -> Self {
        Self { of, ..self }
    }

    /// Returns the option that `argument` names, and the value after `=`, if any. Returns `None` if
    /// the option is unknown.
    ///
    /// As in dkms, only long names accept `=`, and a short name must be a separate word: `-j4` and
    /// `-m=foo` are not options.
    #[must_use]
    pub fn from_argument(argument: &str) -> Option<(&'static Self, Option<&str>)> {
        OPTIONS.iter().find_map(|opt| Some((opt, opt.spelled(argument)?)))
    }

    /// Returns the value after `=` in `argument`, or `Some(None)` if there is no value. Returns
    /// `None` if `argument` is not this option.
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
    #[case::value_with_equals_sign("--directive=A=b", OptId::Directive, Some("A=b"))]
    #[case::empty("--module=", OptId::Module, Some(""))]
    #[case::longer("--modules", OptId::Module, None)]
    #[case::longer_with_value("--kernelversion=6.1", OptId::Kernel, Some("6.1"))]
    #[case::not_a_kernel("--kernelsourcedir", OptId::KernelSource, None)]
    #[case::not_an_archive("--archXYZ", OptId::Arch, None)]
    #[case::archive("--archives", OptId::Archive, None)]
    #[case::flag("--all", OptId::All, None)]
    #[case::exact("--force-version-override", OptId::ForceVersion, None)]
    #[case::modprobe("--modprobe-on-install", OptId::Modprobe, None)]
    #[case::underscores("--rpm_safe_upgrade", OptId::RpmSafeUpgrade, None)]
    #[case::not_in_dkms("--root=/mnt", OptId::Root, Some("/mnt"))]
    fn accepts_every_spelling(
        #[case] argument: &str,
        #[case] id: OptId,
        #[case] value: Option<&str>,
    ) {
        let found = Opt::from_argument(argument).map(|(opt, value)| (opt.id, value));
        assert_eq!(found, Some((id, value)));
    }

    #[rstest]
    #[case::joined("-j4")]
    #[case::short_with_equals_sign("-m=foo")]
    #[case::flag_with_value("--all=yes")]
    #[case::longer_flag("--alls")]
    #[case::letters("-qV")]
    #[case::dash("-")]
    #[case::dashes("--")]
    #[case::unknown("--frobnicate")]
    fn rejects_other_spellings(#[case] argument: &str) {
        assert!(Opt::from_argument(argument).is_none());
    }

    #[test]
    fn every_option_is_found_by_its_own_name() {
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
