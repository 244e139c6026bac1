//! Tab completion for the shells' completion scripts.
//!
//! `dkms __complete WORDS...` completes the last word, which may be empty. It prints one line for
//! each candidate: the whole word, a tab, and a description. A line that begins with a tab tells
//! the shell to complete files (`files`) or directories (`dirs`). The command takes no lock and
//! evaluates no dkms.conf.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write;

use dkms_engine::dkms_tree::{Added, BuiltFor, TreeState};
use dkms_engine::machine::{Kernel, Kernels, Trees};
use dkms_engine::names::{Arch, ModuleId};

use crate::args::commands::{COMMANDS, Command};
use crate::args::machine;
use crate::args::module_arg::ModuleArg;
use crate::args::options::{OPTIONS, Opt, OptId};
use crate::args::parsed::Args;

/// The name of the hidden command that the completion scripts call.
pub const WORD: &str = "__complete";

/// A possible completion.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Candidate {
    /// A word and its description.
    Word(String, String),
    /// Any file. The shell finds the names.
    File,
    /// Any directory. The shell finds the names.
    Directory,
}

/// Writes the completion candidates for the last word. `words` are the words after `dkms`. On an
/// error, writes nothing, because shells show no messages during completion.
pub fn answer(words: impl Iterator<Item = OsString>, out: &mut impl Write) {
    let mut words: Vec<OsString> = words.collect();
    let Some(Ok(current)) = words.pop().map(OsString::into_string) else { return };
    for candidate in candidates(words, &current) {
        let line = match candidate {
            Candidate::Word(word, meaning) => format!("{word}\t{meaning}\n"),
            Candidate::File => "\tfiles\n".into(),
            Candidate::Directory => "\tdirs\n".into(),
        };
        let _ = out.write_all(line.as_bytes());
    }
}

fn candidates(before: Vec<OsString>, current: &str) -> Vec<Candidate> {
    let expecting = before.last().and_then(|word| Opt::from_argument(word.to_str()?));
    let expecting: Option<&'static Opt> =
        expecting.and_then(|(opt, value)| (opt.value.is_some() && value.is_none()).then_some(opt));
    let (args, _) = Args::parse(before);
    let Ok(machine) = machine::of_command_line(&args) else { return Vec::new() };
    let completer = Completer { args, trees: machine.trees, arch: machine.arch };
    let (given, words) = match (expecting, Opt::from_argument(current)) {
        (Some(opt), _) => ("", completer.values(opt, current)),
        // As in `--kernelver=7.2`.
        (None, Some((opt, Some(value)))) => {
            (&current[..current.len() - value.len()], completer.values(opt, value))
        }
        _ if current.starts_with('-') => ("", completer.options()),
        _ => ("", completer.words(current)),
    };
    let mut candidates: Vec<Candidate> = words
        .into_iter()
        .filter_map(|candidate| match candidate {
            Candidate::Word(word, meaning) => {
                let word = format!("{given}{word}");
                word.starts_with(current).then_some(Candidate::Word(word, meaning))
            }
            other => Some(other).filter(|_| given.is_empty()),
        })
        .collect();
    candidates.dedup();
    candidates
}

/// Finds candidates, given the words before the current one and the state of the machine.
struct Completer {
    args: Args,
    trees: Trees,
    arch: Arch,
}

impl Completer {
    /// Returns the options that the command uses, except the ones that have already been given.
    fn options(&self) -> Vec<Candidate> {
        let fits = |opt: &&Opt| {
            let is_used = self.args.command.is_none_or(|command| opt.is_for(command));
            is_used && !opt.help.is_empty() && !self.args.has(opt.id)
        };
        let mut offers = Vec::new();
        for opt in OPTIONS.iter().filter(fits) {
            if !opt.long.is_empty() {
                offers.push(word(format!("--{}", opt.long), opt.help));
            }
            if let Some(letter) = opt.short {
                offers.push(word(format!("-{letter}"), opt.help));
            }
        }
        offers
    }

    /// Returns the candidates for a word that is not an option: commands if no command has been
    /// given, otherwise modules or paths.
    fn words(&self, current: &str) -> Vec<Candidate> {
        let Some(command) = self.args.command else {
            return COMMANDS.iter().map(|info| word(info.name, info.help)).collect();
        };
        if matches!(command, Command::Ldtarball | Command::Lint | Command::Preflight) {
            return vec![Candidate::File];
        }
        if !self.args.names.is_empty() {
            return Vec::new();
        }
        if command.takes_source() && current.starts_with(['.', '/', '~']) {
            return vec![Candidate::File];
        }
        if command == Command::Match {
            return self.names(command);
        }
        if command == Command::Cache {
            return vec![word("clear", "clear the build cache")];
        }
        self.modules(command).into_iter().map(|(id, state)| word(id.to_string(), state)).collect()
    }

    /// Returns the candidates for the value of an option.
    fn values(&self, opt: &Opt, current: &str) -> Vec<Candidate> {
        // An option may precede the command.
        let command = self.args.command.unwrap_or(Command::Status);
        match opt.id {
            OptId::Module if current.contains('/') => {
                let modules = self.modules(command).into_iter();
                modules.map(|(id, state)| word(id.to_string(), state)).collect()
            }
            OptId::Module => self.names(command),
            OptId::Version => {
                let modules = self.modules(command).into_iter();
                let named = modules.filter(|(id, _)| self.is_named(id));
                named.map(|(id, state)| word(id.version.to_string(), state)).collect()
            }
            OptId::Kernel => self.kernels(command),
            OptId::Template => self.kernels_of(|_| true),
            OptId::Arch => vec![word(self.arch.to_string(), "this machine's architecture")],
            OptId::Archive | OptId::Conf | OptId::Config | OptId::Timings => vec![Candidate::File],
            OptId::KernelSource
            | OptId::DkmsTree
            | OptId::SourceTree
            | OptId::InstallTree
            | OptId::Root => {
                vec![Candidate::Directory]
            }
            _ => Vec::new(),
        }
    }

    /// Returns the modules that a command can work on, each with a word for its state.
    fn modules(&self, command: Command) -> Vec<(ModuleId, &'static str)> {
        let added: Vec<Added> =
            TreeState::read(&self.trees).modules.into_iter().filter(Added::is_added).collect();
        let known: BTreeSet<ModuleId> = added.iter().map(|module| module.id.clone()).collect();
        let of = |wanted: fn(&BuiltFor) -> bool| {
            let has = added.iter().filter(move |module| module.kernels.iter().any(wanted));
            has.map(|module| module.id.clone()).collect::<Vec<_>>()
        };
        let all = |ids: Vec<ModuleId>, state| ids.into_iter().map(|id| (id, state)).collect();
        match command {
            Command::Add => {
                let mut sources = self.sources();
                // An added module may split the directory's name into name and version at another
                // place.
                sources.retain(|id| !known.iter().any(|it| it.source_dir() == id.source_dir()));
                all(sources, "source")
            }
            Command::Build | Command::Install | Command::Explain => {
                let mut ids: BTreeSet<ModuleId> = self.sources().into_iter().collect();
                ids.retain(|id| !known.iter().any(|it| it.source_dir() == id.source_dir()));
                ids.extend(known);
                all(ids.into_iter().collect(), "module")
            }
            Command::Uninstall => all(of(|built| built.installed), "installed"),
            Command::Unbuild => all(of(|built| built.has_module_dir), "built"),
            Command::Remove | Command::Status | Command::Mktarball | Command::Match => {
                all(known.into_iter().collect(), "added")
            }
            _ => Vec::new(),
        }
    }

    /// Returns the names of the modules that a command can work on.
    fn names(&self, command: Command) -> Vec<Candidate> {
        let modules = self.modules(command).into_iter();
        modules.map(|(id, state)| word(id.name.to_string(), state)).collect()
    }

    /// Returns the modules in the source tree, one for each directory that contains a dkms.conf.
    fn sources(&self) -> Vec<ModuleId> {
        let entries = fs::read_dir(&self.trees.source).into_iter().flatten().flatten();
        let sources = entries.filter(|entry| entry.path().join("dkms.conf").exists());
        let names = sources.filter_map(|entry| entry.file_name().into_string().ok());
        let mut ids: Vec<_> =
            names.filter_map(|dir| ModuleId::from_source_dir(&dir).ok()).collect();
        ids.sort();
        ids
    }

    /// Returns the kernels that a command can work on.
    fn kernels(&self, command: Command) -> Vec<Candidate> {
        let installed = |wanted: fn(&Kernel) -> bool| {
            let kernels = Kernels::read(&self.trees).unwrap_or_default().all;
            let kernels = kernels.into_iter().filter(wanted);
            let package = |kernel: &Kernel| kernel.pkgbase.clone().unwrap_or("kernel".into());
            kernels.map(|kernel| word(kernel.release.to_string(), package(&kernel))).collect()
        };
        match command {
            Command::Uninstall => self.kernels_of(|built| built.installed),
            Command::Unbuild
            | Command::Remove
            | Command::Mktarball
            | Command::Status
            | Command::KernelPrerm => self.kernels_of(|built| built.has_module_dir),
            Command::KernelPreinst | Command::Explain => installed(|kernel| kernel.alive),
            _ => installed(|kernel| kernel.alive && kernel.headers.is_some()),
        }
    }

    /// Returns the kernels with a build that `wanted` accepts. If the command line names a module,
    /// only the builds of that module count.
    fn kernels_of(&self, wanted: fn(&BuiltFor) -> bool) -> Vec<Candidate> {
        let modules = TreeState::read(&self.trees).modules;
        let named = modules.iter().filter(|module| self.is_named(&module.id));
        let kernels = named.flat_map(|module| &module.kernels).filter(|built| wanted(built));
        let kernels: BTreeSet<_> = kernels.map(|built| &built.kernel).collect();
        kernels.into_iter().map(|kernel| word(kernel.to_string(), "built for")).collect()
    }

    /// Returns true unless the command line names another module or version.
    fn is_named(&self, id: &ModuleId) -> bool {
        let module_arg = ModuleArg::of_names(&self.args);
        module_arg.module.is_none_or(|module| module == id.name.as_str())
            && module_arg.version.is_none_or(|version| version == id.version.as_str())
    }
}

fn word(word: impl Into<String>, meaning: impl Into<String>) -> Candidate {
    Candidate::Word(word.into(), meaning.into())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;

    /// Returns a root in which foo/1 is installed for one kernel and built for another, bar/2 is
    /// added, and new/3 is only a source. A third kernel has no headers.
    fn root() -> TestRoot {
        let root = TestRoot::new();
        for kernel in ["7.1", "7.2"] {
            root.kernel(kernel).pkgbase("linux").headers();
        }
        root.kernel("7.3");
        for (name, version) in [("foo", "1"), ("bar", "2"), ("new", "3")] {
            root.source(name, version);
        }
        let arch = Arch::of_this_machine();
        for (module, dir) in [("foo/1", "foo-1"), ("bar/2", "bar-2")] {
            root.dir(format!("var/lib/dkms/{module}/build"));
            root.link(format!("var/lib/dkms/{module}/source"), format!("/usr/src/{dir}"));
        }
        for kernel in ["7.1", "7.2"] {
            root.dir(format!("var/lib/dkms/foo/1/{kernel}/{arch}/module"));
        }
        root.link(format!("var/lib/dkms/foo/kernel-7.1-{arch}"), format!("1/7.1/{arch}"));
        root
    }

    fn offered(root: &TestRoot, line: &str) -> String {
        let mut before: Vec<OsString> = vec!["--root".into(), root.path().into()];
        let mut words: Vec<&str> = line.split(' ').collect();
        let current = words.pop().unwrap_or_default();
        before.extend(words.into_iter().map(OsString::from));
        let offers = candidates(before, current).into_iter().map(|candidate| match candidate {
            Candidate::Word(word, _) => word,
            Candidate::File => "FILE".into(),
            Candidate::Directory => "DIR".into(),
        });
        offers.collect::<Vec<_>>().join(" ")
    }

    #[rstest]
    #[case::command("un", "uninstall unbuild")]
    #[case::command_after_options("-q autoi", "autoinstall")]
    #[case::sources_for_add("add ", "new/3")]
    #[case::sources_for_install("install ", "bar/2 foo/1 new/3")]
    #[case::paths("install ./", "FILE")]
    #[case::all_for_explain("explain ", "bar/2 foo/1 new/3")]
    #[case::added_for_remove("remove ", "bar/2 foo/1")]
    #[case::installed("uninstall ", "foo/1")]
    #[case::built("unbuild f", "foo/1")]
    #[case::no_second_module("remove foo/1 ", "")]
    #[case::cache("cache ", "clear")]
    #[case::archives("ldtarball ", "FILE")]
    #[case::sources_to_check("lint ", "FILE")]
    #[case::packages("preflight a.pkg.tar.zst ", "FILE")]
    #[case::names("remove -m ", "bar foo")]
    #[case::name_and_version("remove -m foo/", "foo/1")]
    #[case::versions("remove -m foo -v ", "1")]
    #[case::versions_of_sources("add -m new -v ", "3")]
    #[case::kernels_with_headers("install foo/1 -k ", "7.1 7.2")]
    #[case::kernels_it_is_installed_for("uninstall foo/1 -k ", "7.1")]
    #[case::kernels_it_is_built_for("remove foo/1 -k ", "7.1 7.2")]
    #[case::kernels_of_another_module("remove bar/2 -k ", "")]
    #[case::with_equals_sign("status --kernelver=7.2", "--kernelver=7.2")]
    #[case::templates("match --templatekernel ", "7.1 7.2")]
    #[case::files("install -c ", "FILE")]
    #[case::directories("install --dkmstree ", "DIR")]
    #[case::long_options("mktarball --b", "--binaries-only")]
    #[case::options_of_other_commands("add --b", "")]
    #[case::no_option_twice("status --json --js", "")]
    #[case::numbers("build -j ", "")]
    #[case::unknown_option("build --frobnicate ", "bar/2 foo/1 new/3")]
    fn offers_only_usable_words(#[case] line: &str, #[case] want: &str) {
        assert_eq!(offered(&root(), line), want);
    }

    #[test]
    fn added_modules_decide_how_a_directory_name_is_split() {
        let root = root();
        root.source("xpad", "0.11-pre-64");
        root.link("var/lib/dkms/xpad/0.11-pre-64/source", "/usr/src/xpad-0.11-pre-64");
        assert_eq!(offered(&root, "add x"), "");
        assert_eq!(offered(&root, "install x"), "xpad/0.11-pre-64");
    }

    #[test]
    fn every_command_and_option_is_offered() {
        let root = root();
        let commands = offered(&root, "");
        for info in COMMANDS {
            assert!(commands.split(' ').any(|word| word == info.name), "{}", info.name);
        }
        for opt in OPTIONS.iter().filter(|opt| !opt.help.is_empty() && !opt.long.is_empty()) {
            let command = opt.of.first().copied().unwrap_or(Command::Build);
            let name = format!("--{}", opt.long);
            let offered = offered(&root, &format!("{} {name}", command.name()));
            assert!(offered.split(' ').any(|word| word == name), "{name}");
        }
    }

    #[test]
    fn prints_one_line_per_candidate() {
        let mut out = Vec::new();
        let root = root();
        let words = ["--root", root.path().to_str().unwrap(), "ldtarball", "x"];
        answer(words.into_iter().map(OsString::from), &mut out);
        answer(std::iter::once(OsString::from("autoins")), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "\tfiles\nautoinstall\tinstall all modules that set AUTOINSTALL=yes\n");
    }
}
