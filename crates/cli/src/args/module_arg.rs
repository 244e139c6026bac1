//! The module of a command line: a name, or a directory or archive that holds it.

use dkms_engine::failure::Failure;
use std::path::{Path, PathBuf};

use crate::args::commands::Command;
use crate::args::parsed::{Args, ModuleWord};
use crate::args::refusal::refuse;
use crate::args::subject::{Context, Subject};
use crate::args::versions::{only_version, versions};

/// The suffixes of archives.
const ARCHIVES: [&str; 8] =
    [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tar.lzma", ".rpm"];

/// The module that the words of a command line name.
#[derive(Debug, Default)]
pub struct ModuleArg {
    /// The module's name.
    pub module: Option<String>,
    /// The module's version.
    pub version: Option<String>,
    /// Whether a version was given, even an empty one.
    pub versioned: bool,
    /// The last word that is a path.
    pub path: Option<PathBuf>,
    /// Words that are left over.
    pub ignored: Vec<String>,
}

impl ModuleArg {
    /// Reads the module of `command`.
    pub fn read(args: &Args, command: Command, context: &Context) -> Self {
        let versioned = args.names.iter().any(|name| matches!(name, ModuleWord::Version(_)));
        let mut module_arg = Self { versioned, ..Self::default() };
        for name in &args.names {
            match name {
                ModuleWord::Module(text) => module_arg.module(text),
                ModuleWord::Version(text) => module_arg.version = some(text),
                ModuleWord::Word(word) if is_path(word, command, versioned, context) => {
                    module_arg.path = Some(word.into());
                }
                ModuleWord::Word(word) if module_arg.module.is_none() => module_arg.module(word),
                ModuleWord::Word(word) => module_arg.ignored.push(word.clone()),
            }
        }
        if command != Command::Mktarball {
            module_arg.path = args.archive.clone().or(module_arg.path);
        }
        module_arg
    }

    /// Reads the names alone, without looking for paths.
    pub fn of_names(args: &Args) -> Self {
        let mut module_arg = Self::default();
        for name in &args.names {
            match name {
                ModuleWord::Version(text) => module_arg.version = some(text),
                ModuleWord::Module(text) | ModuleWord::Word(text) => module_arg.module(text),
            }
        }
        module_arg
    }

    /// Takes `MODULE` or `MODULE/VERSION`.
    fn module(&mut self, text: &str) {
        match text.split_once('/') {
            Some((module, version)) => {
                self.module = some(module);
                self.version = some(version);
                self.versioned = true;
            }
            None => self.module = some(text),
        }
    }

    /// Returns true if a path is given instead of a module.
    pub fn is_path(&self) -> bool {
        self.module.is_none() && self.version.is_none() && self.path.is_some()
    }

    /// Returns the module that `command` works on. As in dkms, a path counts only if no module is
    /// named.
    ///
    /// # Errors
    /// [`Failure`]: 1 for a name or version that is missing or invalid, 2 for a file that does not
    /// exist, 9 for a file whose name only ends in dkms.conf.
    pub fn subject(self, command: Command, context: &Context) -> Result<Subject, Failure> {
        if let (None, None, Some(path)) = (&self.module, &self.version, &self.path) {
            return source(path);
        }
        let name = command.name();
        match (self.module, self.version) {
            (Some(module), Some(version)) => {
                let id = format!("{module}/{version}").parse();
                id.map(Subject::Module).or_else(|why| refuse(1, format!("{why}")))
            }
            (Some(module), None) if command.finds_version() && !self.versioned => {
                let module = module.parse().or_else(|why| refuse(1, format!("{why}")))?;
                only_version(&context.trees, &module, name).map(Subject::Module)
            }
            (Some(module), None) => refuse(
                1,
                format!("{module}: no version given (expected: dkms {name} {module}/VERSION)"),
            ),
            (None, _) => {
                refuse(1, format!("{name}: no module given (expected: {})", command.expected()))
            }
        }
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// Returns true if a word is a path rather than a module. In dkms every existing file is one, so
/// that an empty file in the working directory hides a module; here a known module hides the file.
fn is_path(word: &str, command: Command, versioned: bool, context: &Context) -> bool {
    if !command.takes_source() {
        return false;
    }
    let looks = word.starts_with(['/', '.'])
        || word.ends_with('/')
        || word.matches('/').count() > 1
        || word.ends_with("dkms.conf")
        || ARCHIVES.iter().any(|end| word.ends_with(end));
    if looks || command == Command::Ldtarball {
        return true;
    }
    let path = Path::new(word);
    let known = match word.split_once('/') {
        Some((module, version)) => {
            let source = context.trees.source.join(format!("{module}-{version}"));
            source.is_dir() || context.trees.dkms.join(word).is_dir()
        }
        None if versioned => true,
        // As in dkms, a checkout of this name.
        None if path.join("dkms.conf").is_file() => false,
        None => word.parse().is_ok_and(|name| !versions(&context.trees, &name).is_empty()),
    };
    !known && (path.is_file() || path.join("dkms.conf").is_file())
}

/// Returns the source at a path.
fn source(path: &Path) -> Result<Subject, Failure> {
    let shown = path.display();
    if path.join("dkms.conf").is_file() {
        return Ok(Subject::Directory(path.to_owned()));
    }
    if !path.is_file() {
        // dkms reads such a word as a module: `/x` has an empty name, `./x` has no source.
        let code = if path.is_absolute() { 1 } else { 2 };
        let problem = match path.is_dir() {
            true => "no dkms.conf in this directory",
            false => "no such file or directory",
        };
        return refuse(code, format!("{shown}: {problem} (expected a module's source or archive)"));
    }
    match path.file_name() {
        Some(name) if name == "dkms.conf" => {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            Ok(Subject::Directory(dir.unwrap_or(Path::new(".")).to_owned()))
        }
        Some(name) if name.as_encoded_bytes().ends_with(b"dkms.conf") => {
            refuse(9, format!("{shown}: wrong file name (expected dkms.conf)"))
        }
        _ => Ok(Subject::Archive(path.to_owned())),
    }
}
