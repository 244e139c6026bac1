//! The table of commands, used by the parser, `--help`, completion and the test of the man page.

/// A command of `dkms`. [`COMMANDS`] describes all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Add,
    Build,
    Install,
    Uninstall,
    Unbuild,
    Remove,
    Autoinstall,
    Status,
    Verify,
    Explain,
    Cache,
    Initramfs,
    Preflight,
    Match,
    Mktarball,
    Ldtarball,
    Lint,
    GenerateMok,
    KernelPreinst,
    KernelPostinst,
    KernelPrerm,
}

/// The name, operands and help of a command.
#[derive(Debug)]
pub struct CommandInfo {
    /// The command that this entry describes.
    pub command: Command,
    /// The name as typed on the command line.
    pub name: &'static str,
    /// The alternatives for the command's operand. The user gives at most one of them.
    pub operands: &'static [Operand],
    /// The description, in one line.
    pub help: &'static str,
    /// Example command lines.
    pub examples: &'static [&'static str],
}

/// An operand that a command accepts.
#[derive(Debug)]
pub struct Operand {
    /// The placeholder in the help, such as `MODULE/VERSION`.
    pub name: &'static str,
    /// The description, in one line.
    pub help: &'static str,
}

const MODULE: Operand =
    Operand { name: "MODULE/VERSION", help: "the module; or use -m MODULE -v VERSION" };
const ANY_MODULE: Operand = Operand {
    name: "MODULE[/VERSION]",
    help: "the module; VERSION is optional if there is only one",
};
const PATH: Operand =
    Operand { name: "PATH", help: "a source directory or archive that contains a dkms.conf" };
const ARCHIVE: Operand = Operand { name: "ARCHIVE", help: "an archive written by mktarball" };

/// All commands, in the order in which `--help` lists them.
pub const COMMANDS: &[CommandInfo] = &[
    info(Command::Add, "add", "add a module to the dkms tree")
        .takes(&[ANY_MODULE, PATH])
        .examples(&["dkms add v4l2loopback/0.15.4", "dkms add ./v4l2loopback"]),
    info(Command::Build, "build", "build a module for a kernel (adding it first if necessary)")
        .takes(&[ANY_MODULE, PATH])
        .examples(&["dkms build v4l2loopback/0.15.4 -k 6.18.41-1-lts"]),
    info(
        Command::Install,
        "install",
        "install a module for a kernel (building it first if necessary)",
    )
    .takes(&[ANY_MODULE, PATH])
    .examples(&["dkms install v4l2loopback", "dkms install v4l2loopback/0.15.4 --all"]),
    info(Command::Uninstall, "uninstall", "uninstall a module from a kernel, but keep the build")
        .takes(&[MODULE])
        .examples(&["dkms uninstall v4l2loopback/0.15.4 -k 6.18.41-1-lts"]),
    info(Command::Unbuild, "unbuild", "uninstall, then delete the build")
        .takes(&[MODULE])
        .examples(&["dkms unbuild v4l2loopback/0.15.4 --all"]),
    info(Command::Remove, "remove", "unbuild, then remove the module if no builds remain")
        .takes(&[MODULE])
        .examples(&["dkms remove v4l2loopback/0.15.4 --all"]),
    info(Command::Autoinstall, "autoinstall", "install all modules that set AUTOINSTALL=yes")
        .examples(&["dkms autoinstall --dry-run", "dkms autoinstall --all"]),
    info(Command::Status, "status", "list modules and their build state")
        .takes(&[Operand {
            name: "[MODULE[/VERSION]]",
            help: "list only this module; names may be patterns with *, ? and []",
        }])
        .examples(&["dkms status", "dkms status 'v4l2*' -k 6.18.41-1-lts --json"]),
    info(
        Command::Verify,
        "verify",
        "check that all modules, images and kernels are as they should be",
    )
    .takes(&[Operand { name: "[MODULE[/VERSION]]", help: "check only this module" }])
    .examples(&["dkms verify", "dkms verify --boot", "dkms verify zfs -k 6.18.41-1-lts"]),
    info(Command::Explain, "explain", "explain the state of a module, and what to do about it")
        .takes(&[Operand { name: "MODULE[/VERSION]", help: "the module; by default all versions" }])
        .examples(&["dkms explain v4l2loopback", "dkms explain zfs/2.4.3 -k 7.2.13-arch1-1"]),
    info(Command::Cache, "cache", "list or clear the build cache")
        .takes(&[Operand { name: "[clear]", help: "delete all cached builds" }])
        .examples(&["dkms cache", "dkms cache clear"]),
    info(
        Command::Initramfs,
        "initramfs",
        "regenerate initramfs images that contain changed modules",
    )
    .examples(&["dkms initramfs --dry-run"]),
    info(
        Command::Preflight,
        "preflight",
        "check whether modules build with packages that are not installed yet",
    )
    .takes(&[Operand { name: "[FILE...]", help: "the package files" }])
    .examples(&[
        "dkms preflight --upgrade",
        "dkms preflight ./linux-7.2.13-1.pkg.tar.zst ./linux-headers-7.2.13-1.pkg.tar.zst",
        "dkms preflight --allow-once",
    ]),
    info(Command::Match, "match", "install the modules of one kernel for another kernel")
        .takes(&[Operand { name: "[MODULE]", help: "install only this module" }])
        .examples(&["dkms match --templatekernel 6.18.41-1-lts -k 7.2.13-arch1-1"]),
    info(Command::Mktarball, "mktarball", "write an archive of a module and its builds")
        .takes(&[MODULE])
        .examples(&["dkms mktarball v4l2loopback/0.15.4 --all --archive ./v4l2loopback.tar.gz"]),
    info(Command::Ldtarball, "ldtarball", "add a module and its builds from an archive")
        .takes(&[ARCHIVE])
        .examples(&["dkms ldtarball ./v4l2loopback.tar.gz"]),
    info(Command::Lint, "lint", "for authors: report mistakes in a module's source")
        .takes(&[PATH])
        .examples(&["dkms lint ./v4l2loopback", "dkms lint ./v4l2loopback.tar.gz --strict --json"]),
    info(Command::GenerateMok, "generate_mok", "create the module signing key")
        .examples(&["dkms generate_mok"]),
    info(
        Command::KernelPreinst,
        "kernel_preinst",
        "delete old builds for a kernel before it is installed",
    )
    .examples(&["dkms kernel_preinst -k 7.2.13-arch1-1"]),
    info(
        Command::KernelPostinst,
        "kernel_postinst",
        "run autoinstall for a kernel after it is installed",
    )
    .examples(&["dkms kernel_postinst -k 7.2.13-arch1-1"]),
    info(
        Command::KernelPrerm,
        "kernel_prerm",
        "delete the builds for a kernel before it is removed",
    )
    .examples(&["dkms kernel_prerm -k 7.2.13-arch1-1"]),
];

const fn info(command: Command, name: &'static str, help: &'static str) -> CommandInfo {
    CommandInfo { command, name, operands: &[], help, examples: &[] }
}

impl CommandInfo {
    const fn takes(self, operands: &'static [Operand]) -> Self {
        Self { operands, ..self }
    }

    const fn examples(self, examples: &'static [&'static str]) -> Self {
        Self { examples, ..self }
    }

    /// Returns the command with its operands, such as `install MODULE[/VERSION] | PATH`.
    #[must_use]
    pub fn usage(&self) -> String {
        let operands: Vec<_> = self.operands.iter().map(|operand| operand.name).collect();
        format!("{} {}", self.name, operands.join(" | ")).trim_end().to_owned()
    }
}

impl Command {
    /// Returns the command with the name `word`; `None` if there is none.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        COMMANDS.iter().find(|info| info.name == word).map(|info| info.command)
    }

    /// Returns the command's entry in [`COMMANDS`].
    #[must_use]
    pub fn info(self) -> Option<&'static CommandInfo> {
        COMMANDS.iter().find(|info| info.command == self)
    }

    /// Returns the command's name as typed on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.info().map_or("", |info| info.name)
    }

    /// Returns the usage with the first operand, such as `dkms remove MODULE/VERSION`, for error
    /// messages.
    #[must_use]
    pub fn expected(self) -> String {
        let operand = self.info().and_then(|info| info.operands.first());
        format!("dkms {} {}", self.name(), operand.map_or("", |operand| operand.name))
    }

    /// Returns true if the command accepts a directory or an archive.
    #[must_use]
    pub fn takes_source(self) -> bool {
        matches!(self, Self::Add | Self::Build | Self::Install | Self::Ldtarball | Self::Lint)
    }

    /// Returns true if the user may omit the version of a module that has only one.
    #[must_use]
    pub fn finds_version(self) -> bool {
        matches!(self, Self::Add | Self::Build | Self::Install)
    }

    /// Returns true if the command is for the scripts of kernel packages. Such a command requires
    /// `-k`.
    #[must_use]
    pub fn is_kernel_hook(self) -> bool {
        matches!(self, Self::KernelPreinst | Self::KernelPostinst | Self::KernelPrerm)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::args::parsed::Args;

    #[test]
    fn examples_are_valid_command_lines() {
        for info in COMMANDS {
            assert!(!info.examples.is_empty(), "{}", info.name);
            for example in info.examples {
                let (args, exit) = Args::parse(example.split(' ').skip(1).map(OsString::from));
                assert_eq!((args.command, exit), (Some(info.command), None), "{example}");
            }
        }
    }
}
