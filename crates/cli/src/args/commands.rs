//! The table of commands, for the parser, `--help`, completion and the test of the man page.

/// A command; [`COMMANDS`] says what each does.
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
    Cache,
    Initramfs,
    Match,
    Mktarball,
    Ldtarball,
    GenerateMok,
    KernelPreinst,
    KernelPostinst,
    KernelPrerm,
}

/// A command as users see it.
#[derive(Debug)]
pub struct CommandInfo {
    /// The command.
    pub command: Command,
    /// Its name on the command line.
    pub name: &'static str,
    /// The operands; with several, one of them is expected.
    pub operands: &'static [Operand],
    /// The description, in one line.
    pub help: &'static str,
    /// Example command lines.
    pub examples: &'static [&'static str],
}

/// The arguments of a command.
#[derive(Debug)]
pub struct Operand {
    /// Its placeholder.
    pub name: &'static str,
    /// The description, in one line.
    pub help: &'static str,
}

const MODULE: Operand =
    Operand { name: "MODULE/VERSION", help: "a module, also given as -m MODULE -v VERSION" };
const ANY_MODULE: Operand = Operand {
    name: "MODULE[/VERSION]",
    help: "a module; the version is optional if only one is added or in /usr/src",
};
const PATH: Operand =
    Operand { name: "PATH", help: "a directory with a dkms.conf, or an archive of one" };
const ARCHIVE: Operand = Operand { name: "ARCHIVE", help: "an archive written by mktarball" };

/// All commands, in the order in which they are listed.
pub const COMMANDS: &[CommandInfo] = &[
    info(Command::Add, "add", "add a module to the dkms tree")
        .takes(&[ANY_MODULE, PATH])
        .examples(&["dkms add v4l2loopback/0.15.4", "dkms add ./v4l2loopback"]),
    info(Command::Build, "build", "build a module for a kernel (adds it first if necessary)")
        .takes(&[ANY_MODULE, PATH])
        .examples(&["dkms build v4l2loopback/0.15.4 -k 6.18.41-1-lts"]),
    info(
        Command::Install,
        "install",
        "install a module for a kernel (builds it first if necessary)",
    )
    .takes(&[ANY_MODULE, PATH])
    .examples(&["dkms install v4l2loopback", "dkms install v4l2loopback/0.15.4 --all"]),
    info(Command::Uninstall, "uninstall", "remove a module from a kernel, but keep its build")
        .takes(&[MODULE])
        .examples(&["dkms uninstall v4l2loopback/0.15.4 -k 6.18.41-1-lts"]),
    info(Command::Unbuild, "unbuild", "uninstall, then delete the build")
        .takes(&[MODULE])
        .examples(&["dkms unbuild v4l2loopback/0.15.4 --all"]),
    info(Command::Remove, "remove", "unbuild, then remove the module if no build is left")
        .takes(&[MODULE])
        .examples(&["dkms remove v4l2loopback/0.15.4 --all"]),
    info(
        Command::Autoinstall,
        "autoinstall",
        "install all modules with AUTOINSTALL=yes for a kernel",
    )
    .examples(&["dkms autoinstall --dry-run", "dkms autoinstall --all"]),
    info(Command::Status, "status", "list modules and their build state")
        .takes(&[Operand {
            name: "[MODULE[/VERSION]]",
            help: "only this module; names may be patterns with *, ? and []",
        }])
        .examples(&["dkms status", "dkms status 'v4l2*' -k 6.18.41-1-lts --json"]),
    info(Command::Cache, "cache", "list or clear the build cache")
        .takes(&[Operand { name: "[clear]", help: "delete all cached builds" }])
        .examples(&["dkms cache", "dkms cache clear"]),
    info(
        Command::Initramfs,
        "initramfs",
        "regenerate initramfs images that contain changed modules",
    )
    .examples(&["dkms initramfs --dry-run"]),
    info(Command::Match, "match", "install the modules of one kernel for another")
        .takes(&[Operand { name: "[MODULE]", help: "only this module" }])
        .examples(&["dkms match --templatekernel 6.18.41-1-lts -k 7.2.13-arch1-1"]),
    info(Command::Mktarball, "mktarball", "write a module and its builds to an archive")
        .takes(&[MODULE])
        .examples(&["dkms mktarball v4l2loopback/0.15.4 --all --archive v4l2loopback.tar.gz"]),
    info(Command::Ldtarball, "ldtarball", "add a module and its builds from an archive")
        .takes(&[ARCHIVE])
        .examples(&["dkms ldtarball ./v4l2loopback.tar.gz"]),
    info(Command::GenerateMok, "generate_mok", "create the module signing key")
        .examples(&["dkms generate_mok"]),
    info(
        Command::KernelPreinst,
        "kernel_preinst",
        "before a kernel is installed: delete its builds",
    )
    .examples(&["dkms kernel_preinst -k 7.2.13-arch1-1"]),
    info(Command::KernelPostinst, "kernel_postinst", "after a kernel is installed: autoinstall")
        .examples(&["dkms kernel_postinst -k 7.2.13-arch1-1"]),
    info(Command::KernelPrerm, "kernel_prerm", "before a kernel is removed: delete its builds")
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

    /// Returns the command with its operands: `install MODULE[/VERSION] | PATH`.
    #[must_use]
    pub fn usage(&self) -> String {
        let operands: Vec<_> = self.operands.iter().map(|operand| operand.name).collect();
        format!("{} {}", self.name, operands.join(" | ")).trim_end().to_owned()
    }
}

impl Command {
    /// Returns the command of this name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        COMMANDS.iter().find(|info| info.name == word).map(|info| info.command)
    }

    /// Returns its entry in the table.
    #[must_use]
    pub fn info(self) -> Option<&'static CommandInfo> {
        COMMANDS.iter().find(|info| info.command == self)
    }

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.info().map_or("", |info| info.name)
    }

    /// Returns its name and the operand that it needs, for error messages.
    #[must_use]
    pub fn expected(self) -> String {
        let operand = self.info().and_then(|info| info.operands.first());
        format!("dkms {} {}", self.name(), operand.map_or("", |operand| operand.name))
    }

    /// Returns true if a module may be given as a directory or an archive.
    #[must_use]
    pub fn takes_source(self) -> bool {
        matches!(self, Self::Add | Self::Build | Self::Install | Self::Ldtarball)
    }

    /// Returns true if the version may be omitted if there is only one.
    #[must_use]
    pub fn finds_version(self) -> bool {
        matches!(self, Self::Add | Self::Build | Self::Install)
    }

    /// Returns true if kernel packages call it; they must give the kernel.
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
    fn examples_are_command_lines_of_their_command() {
        for info in COMMANDS {
            assert!(!info.examples.is_empty(), "{}", info.name);
            for example in info.examples {
                let (args, exit) = Args::parse(example.split(' ').skip(1).map(OsString::from));
                assert_eq!((args.command, exit), (Some(info.command), None), "{example}");
            }
        }
    }
}
