//! The commands: what each is called and does. The parser, `--help`, completion and the man page
//! all read this one table.

/// What `dkms` is told to do; [`COMMANDS`] says what each does.
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

/// A command as it is typed and explained.
#[derive(Debug)]
pub struct CommandInfo {
    /// Which one.
    pub command: Command,
    /// The word that is typed.
    pub name: &'static str,
    /// What follows it, for people.
    pub operands: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
}

const MODULE: &str = "MODULE/VERSION";
const SOURCE: &str = "MODULE[/VERSION]|PATH";

/// All commands, in the order in which they are listed.
pub const COMMANDS: &[CommandInfo] = &[
    about(Command::Add, "add", SOURCE, "register a module, from /usr/src or from elsewhere"),
    about(Command::Build, "build", SOURCE, "compile a module for a kernel (adds it if need be)"),
    about(
        Command::Install,
        "install",
        SOURCE,
        "place a module for a kernel (builds it if need be)",
    ),
    about(
        Command::Uninstall,
        "uninstall",
        MODULE,
        "take a module out of a kernel, but keep it built",
    ),
    about(Command::Unbuild, "unbuild", MODULE, "forget what was built for a kernel"),
    about(Command::Remove, "remove", MODULE, "forget a module with all that was built of it"),
    about(Command::Autoinstall, "autoinstall", "", "install every willing module for a kernel"),
    about(
        Command::Status,
        "status",
        "[MODULE[/VERSION]]",
        "list modules with what is built of them",
    ),
    about(Command::Cache, "cache", "[clear]", "list the builds that may come back, or forget them"),
    about(Command::Initramfs, "initramfs", "", "regenerate images that hold a module that changed"),
    about(Command::Match, "match", "[MODULE]", "install for one kernel what another one has"),
    about(Command::Mktarball, "mktarball", MODULE, "write a module and its builds into an archive"),
    about(
        Command::Ldtarball,
        "ldtarball",
        "ARCHIVE",
        "add a module and its builds from an archive",
    ),
    about(Command::GenerateMok, "generate_mok", "", "make the key that modules are signed with"),
    about(Command::KernelPreinst, "kernel_preinst", "", "a kernel comes: forget builds for it"),
    about(Command::KernelPostinst, "kernel_postinst", "", "a kernel came: as autoinstall"),
    about(Command::KernelPrerm, "kernel_prerm", "", "a kernel goes: forget builds for it"),
];

const fn about(
    command: Command,
    name: &'static str,
    operands: &'static str,
    help: &'static str,
) -> CommandInfo {
    CommandInfo { command, name, operands, help }
}

impl Command {
    /// The command that is typed as `word`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        COMMANDS.iter().find(|about| about.name == word).map(|about| about.command)
    }

    /// How it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        COMMANDS.iter().find(|about| about.command == self).map_or("", |about| about.name)
    }

    /// Whether its module may be named by the directory or the archive that holds it.
    #[must_use]
    pub fn takes_source(self) -> bool {
        matches!(self, Self::Add | Self::Build | Self::Install | Self::Ldtarball)
    }

    /// Whether a module's name is enough for it where there is only one version.
    #[must_use]
    pub fn finds_version(self) -> bool {
        matches!(self, Self::Add | Self::Build | Self::Install)
    }

    /// Whether a kernel's package calls it, and has to name the kernel.
    #[must_use]
    pub fn is_kernel_hook(self) -> bool {
        matches!(self, Self::KernelPreinst | Self::KernelPostinst | Self::KernelPrerm)
    }
}
