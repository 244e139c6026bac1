//! Parses the command line as dkms does, without interpreting it.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::args::commands::Command;
use crate::args::options::{Opt, OptId};

/// A parsed command line, which [`crate::args::intent`] interprets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// The command; `None` if no word names a command.
    pub command: Option<Command>,
    /// The words and options that can name a module, in order. If the version is given more than
    /// once, the last one is used.
    pub names: Vec<ModuleWord>,
    /// The values of `-k`, in order.
    pub kernels: Vec<String>,
    /// The values of `-a`, in order.
    pub arches: Vec<String>,
    /// The value of `--archive`.
    pub archive: Option<PathBuf>,
    /// The value of `-c`.
    pub conf: Option<PathBuf>,
    /// The value of `--config`.
    pub config: Option<PathBuf>,
    /// The value of `--kernelsourcedir`.
    pub kernel_source: Option<PathBuf>,
    /// The values of `--directive`, in order.
    pub directives: Vec<String>,
    /// The value of `--templatekernel`.
    pub template: Option<String>,
    /// The value of `-j`, not yet parsed as a number.
    pub jobs: Option<String>,
    /// The value of `--dkmstree`.
    pub dkms_tree: Option<PathBuf>,
    /// The value of `--sourcetree`.
    pub source_tree: Option<PathBuf>,
    /// The value of `--installtree`.
    pub install_tree: Option<PathBuf>,
    /// The value of `--timings`.
    pub timings: Option<PathBuf>,
    /// The value of `--root`.
    pub root: Option<PathBuf>,
    /// The options without a value, in order.
    flags: Vec<OptId>,
    /// The given options that are deprecated and have no effect.
    pub deprecated: Vec<&'static str>,
}

/// A word or option value that can name a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleWord {
    /// The value of `-m`.
    Module(String),
    /// The value of `-v`.
    Version(String),
    /// A word that belongs to no option.
    Word(String),
}

/// The reason why parsing stopped before the end of the command line.
#[derive(Debug, PartialEq, Eq)]
pub enum EarlyExit {
    /// `--version`
    Version,
    /// `--help`
    Help,
    /// An unknown option (dkms's exit code 2).
    Unknown(String),
    /// A second command (dkms's exit code 4).
    TwoCommands {
        /// The first command.
        first: &'static str,
        /// The second command.
        second: &'static str,
    },
    /// An option without its required value. The field is the long name.
    NoValue(&'static str),
    /// A word that is not UTF-8.
    NotText(OsString),
}

impl Args {
    /// Parses the arguments of a command line from left to right. Options before an [`EarlyExit`]
    /// take effect: `-q --frobnicate` prints nothing.
    #[must_use]
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> (Self, Option<EarlyExit>) {
        let mut args = Self::default();
        let mut arguments = arguments.into_iter().map(OsString::into_string);
        while let Some(argument) = arguments.next() {
            let argument = match argument {
                Ok(argument) => argument,
                Err(word) => return (args, Some(EarlyExit::NotText(word))),
            };
            let taken = if argument.starts_with('-') {
                args.option(&argument, &mut arguments)
            } else {
                args.word(argument)
            };
            if let Err(stop) = taken {
                return (args, Some(stop));
            }
        }
        (args, None)
    }

    /// Returns true if the flag was given.
    #[must_use]
    pub fn has(&self, flag: OptId) -> bool {
        self.flags.contains(&flag)
    }

    fn option(
        &mut self,
        argument: &str,
        rest: &mut impl Iterator<Item = Result<String, OsString>>,
    ) -> Result<(), EarlyExit> {
        let Some((opt, value)) = Opt::from_argument(argument) else {
            return Err(EarlyExit::Unknown(argument.to_owned()));
        };
        if opt.value.is_none() {
            return self.flag(opt);
        }
        let value = match value {
            Some(value) => value.to_owned(),
            // As in dkms, a missing value at the end of the command line is empty.
            None => rest.next().transpose().map_err(EarlyExit::NotText)?.unwrap_or_default(),
        };
        // Unlike dkms's options, these two need a value: `--root "$UNSET"` must not change this
        // system.
        if value.is_empty() && matches!(opt.id, OptId::Root | OptId::Timings) {
            return Err(EarlyExit::NoValue(opt.long));
        }
        self.value(opt.id, bare(&value));
        Ok(())
    }

    fn flag(&mut self, opt: &Opt) -> Result<(), EarlyExit> {
        match opt.id {
            OptId::PrintVersion => return Err(EarlyExit::Version),
            OptId::Help => return Err(EarlyExit::Help),
            OptId::Deprecated => self.deprecated.push(opt.long),
            id => self.flags.push(id),
        }
        Ok(())
    }

    fn value(&mut self, id: OptId, value: String) {
        let path = |value: String| Some(value).filter(|it| !it.is_empty()).map(PathBuf::from);
        match id {
            OptId::Module => self.names.push(ModuleWord::Module(value)),
            OptId::Version => self.names.push(ModuleWord::Version(value)),
            OptId::Kernel => self.kernels.push(value),
            OptId::Arch => self.arches.push(value),
            OptId::Archive => self.archive = path(value),
            OptId::Conf => self.conf = path(value),
            OptId::Config => self.config = path(value),
            OptId::KernelSource => self.kernel_source = path(value),
            OptId::Directive => self.directives.push(value),
            OptId::Template => self.template = Some(value),
            OptId::Jobs => self.jobs = Some(value),
            OptId::DkmsTree => self.dkms_tree = path(value),
            OptId::SourceTree => self.source_tree = path(value),
            OptId::InstallTree => self.install_tree = path(value),
            OptId::Root => self.root = path(value),
            OptId::Timings => self.timings = path(value),
            id => self.flags.push(id),
        }
    }

    fn word(&mut self, word: String) -> Result<(), EarlyExit> {
        let Some(command) = Command::from_word(&word) else {
            self.names.push(ModuleWord::Word(word));
            return Ok(());
        };
        match self.command.replace(command) {
            Some(first) => {
                self.command = Some(first);
                Err(EarlyExit::TwoCommands { first: first.name(), second: command.name() })
            }
            None => Ok(()),
        }
    }
}

/// Returns the first line of a value without surrounding blanks. dkms ignores the rest.
fn bare(value: &str) -> String {
    value.lines().next().unwrap_or_default().trim_matches([' ', '\t']).to_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parse(line: &str) -> (Args, Option<EarlyExit>) {
        Args::parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn accepts_words_and_options_in_any_order() {
        let (args, stop) = parse("-k 6.1 foo/1 -q install --force -v 2 --kernelversion=6.2/a");
        assert_eq!(stop, None);
        assert_eq!(args.command, Some(Command::Install));
        assert_eq!(args.kernels, ["6.1", "6.2/a"]);
        let names = [ModuleWord::Word("foo/1".into()), ModuleWord::Version("2".into())];
        assert_eq!(args.names, names);
        assert!(args.has(OptId::Quiet) && args.has(OptId::Force) && !args.has(OptId::All));
    }

    #[rstest]
    #[case::trimmed(&["-v", " 1.0\t"], "1.0")]
    #[case::first_line(&["-v", "1.0\n2.0"], "1.0")]
    #[case::end_of_line(&["-v"], "")]
    #[case::another_option(&["-v", "--force"], "--force")]
    fn reads_values_as_dkms_does(#[case] arguments: &[&str], #[case] version: &str) {
        let (args, stop) = Args::parse(arguments.iter().map(OsString::from));
        assert_eq!((args.names, stop), (vec![ModuleWord::Version(version.into())], None));
    }

    #[rstest]
    #[case::version("add --version --frobnicate", EarlyExit::Version)]
    #[case::help("-h remove add", EarlyExit::Help)]
    #[case::unknown("add --frobnicate -V", EarlyExit::Unknown("--frobnicate".into()))]
    #[case::terminator("add -- foo", EarlyExit::Unknown("--".into()))]
    #[case::two_commands("add remove", EarlyExit::TwoCommands { first: "add", second: "remove" })]
    #[case::no_root("status --root", EarlyExit::NoValue("root"))]
    #[case::empty_root("remove a/1 --root= --all", EarlyExit::NoValue("root"))]
    #[case::no_timings("build --timings", EarlyExit::NoValue("timings"))]
    #[case::same_command_twice("add add", EarlyExit::TwoCommands { first: "add", second: "add" })]
    fn stops_where_dkms_stops(#[case] line: &str, #[case] want: EarlyExit) {
        assert_eq!(parse(line).1, Some(want));
    }

    #[test]
    fn options_before_an_early_exit_take_effect() {
        assert!(parse("-q --frobnicate").0.has(OptId::Quiet));
        assert!(!parse("--frobnicate -q").0.has(OptId::Quiet));
    }
}
