//! What was typed: the command line word for word, read as dkms reads it.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::args::commands::Command;
use crate::args::options::{Id, Opt};

/// The words of one command line, in any order. [`crate::args::intent`] says what they mean.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// The command: the first word that is one.
    pub command: Option<Command>,
    /// What may name a module, in order: a later version counts more than an earlier one.
    pub names: Vec<Naming>,
    /// `-k`, as typed.
    pub kernels: Vec<String>,
    /// `-a`, as typed.
    pub arches: Vec<String>,
    /// `--archive`
    pub archive: Option<PathBuf>,
    /// `-c`
    pub conf: Option<PathBuf>,
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--kernelsourcedir`
    pub kernel_source: Option<PathBuf>,
    /// `--directive`
    pub directives: Vec<String>,
    /// `--templatekernel`
    pub template: Option<String>,
    /// `-j`, as typed.
    pub jobs: Option<String>,
    /// `--dkmstree`
    pub dkms_tree: Option<PathBuf>,
    /// `--sourcetree`
    pub source_tree: Option<PathBuf>,
    /// `--installtree`
    pub install_tree: Option<PathBuf>,
    /// `--timings`
    pub timings: Option<PathBuf>,
    /// `--root`
    pub root: Option<PathBuf>,
    /// The options without a value, in order.
    flags: Vec<Id>,
    /// Options of older releases, which do nothing any more.
    pub deprecated: Vec<&'static str>,
}

/// A word that may name a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// `-m`
    Module(String),
    /// `-v`
    Version(String),
    /// A word without an option.
    Word(String),
}

/// What ends the reading of a command line where it stands.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// `--version`
    #[error("the version is asked for")]
    Version,
    /// `--help`
    #[error("help is asked for")]
    Help,
    /// No such option (dkms's exit code 2).
    #[error("Unknown option: {0}\n  the options are listed by dkms --help")]
    Unknown(String),
    /// Two commands (dkms's exit code 4).
    #[error("{first} and {second} are two commands, and only one can be carried out")]
    TwoCommands {
        /// The one that came first.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A word that is no text.
    #[error("{0:?} is not UTF-8, and nothing that dkms works with is named so")]
    NotText(OsString),
}

impl Stop {
    /// dkms's exit code for it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Version | Self::Help => 0,
            Self::Unknown(_) => 2,
            Self::TwoCommands { .. } => 4,
            Self::NotText(_) => 1,
        }
    }
}

impl Typed {
    /// Reads the arguments of a command line, from left to right. What came before a [`Stop`]
    /// counts: `-q --frobnicate` complains about nothing.
    #[must_use]
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> (Self, Option<Stop>) {
        let mut typed = Self::default();
        let mut arguments = arguments.into_iter().map(OsString::into_string);
        while let Some(argument) = arguments.next() {
            let argument = match argument {
                Ok(argument) => argument,
                Err(word) => return (typed, Some(Stop::NotText(word))),
            };
            let taken = if argument.starts_with('-') {
                typed.option(&argument, &mut arguments)
            } else {
                typed.word(argument)
            };
            if let Err(stop) = taken {
                return (typed, Some(stop));
            }
        }
        (typed, None)
    }

    /// Whether an option without a value was given.
    #[must_use]
    pub fn has(&self, flag: Id) -> bool {
        self.flags.contains(&flag)
    }

    fn option(
        &mut self,
        argument: &str,
        rest: &mut impl Iterator<Item = Result<String, OsString>>,
    ) -> Result<(), Stop> {
        let Some((opt, value)) = Opt::from_argument(argument) else {
            return Err(Stop::Unknown(argument.to_owned()));
        };
        if opt.value.is_none() {
            return self.flag(opt);
        }
        let value = match value {
            Some(value) => value.to_owned(),
            // dkms takes the end of the line for an empty value.
            None => rest.next().transpose().map_err(Stop::NotText)?.unwrap_or_default(),
        };
        self.value(opt.id, bare(&value));
        Ok(())
    }

    fn flag(&mut self, opt: &Opt) -> Result<(), Stop> {
        match opt.id {
            Id::PrintVersion => return Err(Stop::Version),
            Id::Help => return Err(Stop::Help),
            Id::Deprecated => self.deprecated.push(opt.long),
            id => self.flags.push(id),
        }
        Ok(())
    }

    fn value(&mut self, id: Id, value: String) {
        let path = |value: String| Some(value).filter(|it| !it.is_empty()).map(PathBuf::from);
        match id {
            Id::Module => self.names.push(Naming::Module(value)),
            Id::Version => self.names.push(Naming::Version(value)),
            Id::Kernel => self.kernels.push(value),
            Id::Arch => self.arches.push(value),
            Id::Archive => self.archive = path(value),
            Id::Conf => self.conf = path(value),
            Id::Config => self.config = path(value),
            Id::KernelSource => self.kernel_source = path(value),
            Id::Directive => self.directives.push(value),
            Id::Template => self.template = Some(value),
            Id::Jobs => self.jobs = Some(value),
            Id::DkmsTree => self.dkms_tree = path(value),
            Id::SourceTree => self.source_tree = path(value),
            Id::InstallTree => self.install_tree = path(value),
            Id::Root => self.root = path(value),
            Id::Timings => self.timings = path(value),
            id => self.flags.push(id),
        }
    }

    fn word(&mut self, word: String) -> Result<(), Stop> {
        let Some(command) = Command::from_word(&word) else {
            self.names.push(Naming::Word(word));
            return Ok(());
        };
        match self.command.replace(command) {
            Some(first) => {
                self.command = Some(first);
                Err(Stop::TwoCommands { first: first.name(), second: command.name() })
            }
            None => Ok(()),
        }
    }
}

/// A value as dkms reads it: its first line, without blanks around it.
fn bare(value: &str) -> String {
    value.lines().next().unwrap_or_default().trim_matches([' ', '\t']).to_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn read(line: &str) -> (Typed, Option<Stop>) {
        Typed::read(line.split(' ').map(OsString::from))
    }

    #[test]
    fn takes_words_and_options_in_any_order() {
        let (typed, stop) = read("-k 6.1 foo/1 -q install --force -v 2 --kernelversion=6.2/a");
        assert_eq!(stop, None);
        assert_eq!(typed.command, Some(Command::Install));
        assert_eq!(typed.kernels, ["6.1", "6.2/a"]);
        let names = [Naming::Word("foo/1".into()), Naming::Version("2".into())];
        assert_eq!(typed.names, names);
        assert!(typed.has(Id::Quiet) && typed.has(Id::Force) && !typed.has(Id::All));
    }

    #[rstest]
    #[case::trimmed(&["-v", " 1.0\t"], "1.0")]
    #[case::first_line(&["-v", "1.0\n2.0"], "1.0")]
    #[case::end_of_line(&["-v"], "")]
    #[case::an_option(&["-v", "--force"], "--force")]
    fn takes_values_as_dkms_does(#[case] arguments: &[&str], #[case] version: &str) {
        let (typed, stop) = Typed::read(arguments.iter().map(OsString::from));
        assert_eq!((typed.names, stop), (vec![Naming::Version(version.into())], None));
    }

    #[rstest]
    #[case::version("add --version --frobnicate", Stop::Version)]
    #[case::help("-h remove add", Stop::Help)]
    #[case::unknown("add --frobnicate -V", Stop::Unknown("--frobnicate".into()))]
    #[case::terminator("add -- foo", Stop::Unknown("--".into()))]
    #[case::two("add remove", Stop::TwoCommands { first: "add", second: "remove" })]
    #[case::twice("add add", Stop::TwoCommands { first: "add", second: "add" })]
    fn stops_where_dkms_stops(#[case] line: &str, #[case] want: Stop) {
        assert_eq!(read(line).1, Some(want));
    }

    #[test]
    fn what_came_before_a_stop_counts() {
        assert!(read("-q --frobnicate").0.has(Id::Quiet));
        assert!(!read("--frobnicate -q").0.has(Id::Quiet));
    }
}
