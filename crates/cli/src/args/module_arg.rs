//! The module on the command line: a name, or the path of a directory or archive.

use dkms_engine::failure::Failure;
use std::path::{Path, PathBuf};

use crate::args::commands::Command;
use crate::args::parsed::{Args, ModuleWord};
use crate::args::refusal::refuse;
use crate::args::subject::{Context, Subject};
use crate::args::versions::{only_version, versions};

/// The suffixes that mark a word as the path of an archive.
const ARCHIVES: [&str; 8] =
    [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tar.lzma", ".rpm"];

/// The module or path named on a command line.
#[derive(Debug, Default)]
pub struct ModuleArg {
    /// The name; `None` if it is missing or empty.
    pub module: Option<String>,
    /// The version; `None` if it is missing or empty.
    pub version: Option<String>,
    /// Whether a version was given, even an empty one.
    pub versioned: bool,
    /// The value of `--archive`, or else the last word that is a path.
    pub path: Option<PathBuf>,
    /// The unexpected words that follow the module.
    pub ignored: Vec<String>,
}

impl ModuleArg {
    /// Reads the module or path that `command` works on.
    pub fn read(args: &Args, command: Command, context: &Context<'_>) -> Self {
        if command == Command::Preflight {
            return Self::default(); // its words are package files
        }
        let versioned = args.names.iter().any(|name| matches!(name, ModuleWord::Version(_)));
        let mut module_arg = Self { versioned, ..Self::default() };
        for name in &args.names {
            match name {
                ModuleWord::Module(text) => module_arg.module(text),
                ModuleWord::Version(text) => module_arg.version = non_empty(text),
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

    /// Reads the module. Treats every word as a name and none as a path.
    pub fn of_names(args: &Args) -> Self {
        let mut module_arg = Self::default();
        for name in &args.names {
            match name {
                ModuleWord::Version(text) => module_arg.version = non_empty(text),
                ModuleWord::Module(text) | ModuleWord::Word(text) => module_arg.module(text),
            }
        }
        module_arg
    }

    /// Sets the name from `text`, and also the version if `text` is `MODULE/VERSION`.
    fn module(&mut self, text: &str) {
        match text.split_once('/') {
            Some((module, version)) => {
                self.module = non_empty(module);
                self.version = non_empty(version);
                self.versioned = true;
            }
            None => self.module = non_empty(text),
        }
    }

    /// Returns true if a path but no module is given.
    pub fn is_path(&self) -> bool {
        self.module.is_none() && self.version.is_none() && self.path.is_some()
    }

    /// Returns the module, directory or archive that `command` works on. As in dkms, a path is
    /// ignored if a module is named.
    ///
    /// # Errors
    /// [`Failure`] with exit code 1 for a missing or invalid name or version, 1 (absolute path) or
    /// 2 (relative path) for a path without a module, 9 for a file with a name such as
    /// `my-dkms.conf`.
    pub fn subject(self, command: Command, context: &Context<'_>) -> Result<Subject, Failure> {
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
                only_version(context.machine, &module, name).map(Subject::Module)
            }
            (Some(module), None) => Err(Failure::new(1, format!("{module}: no version given"))
                .with_hint(format!("run: dkms {name} {module}/VERSION"))),
            (None, _) => Err(Failure::new(1, format!("{name}: no module given"))
                .with_hint(format!("run: {}", command.expected()))),
        }
    }
}

fn non_empty(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// Returns true if `word` is a path rather than a module.
///
/// In dkms, every existing file is a path, so a file in the working directory takes precedence over
/// a module with the same name. Here, a known module takes precedence over a file.
fn is_path(word: &str, command: Command, versioned: bool, context: &Context<'_>) -> bool {
    if !command.takes_source() {
        return false;
    }
    let looks_like_path = word.starts_with(['/', '.'])
        || word.ends_with('/')
        || word.matches('/').count() > 1
        || word.ends_with("dkms.conf")
        || ARCHIVES.iter().any(|end| word.ends_with(end));
    if looks_like_path || matches!(command, Command::Ldtarball | Command::Lint) {
        return true;
    }
    let path = Path::new(word);
    let known = match word.split_once('/') {
        Some((module, version)) => {
            let source = context.machine.trees.source.join(format!("{module}-{version}"));
            source.is_dir() || context.machine.trees.dkms.join(word).is_dir()
        }
        None if versioned => true,
        // As in dkms, a source directory with this name takes precedence.
        None if path.join("dkms.conf").is_file() => false,
        None => word.parse().is_ok_and(|name| !versions(context.machine, &name).is_empty()),
    };
    !known && (path.is_file() || path.join("dkms.conf").is_file())
}

/// Returns the directory or archive at `path`.
fn source(path: &Path) -> Result<Subject, Failure> {
    let shown = path.display();
    if path.join("dkms.conf").is_file() {
        return Ok(Subject::Directory(path.to_owned()));
    }
    if !path.is_file() {
        // dkms treats a path without a source as a module: `/x` has an empty name, and `./x` has no
        // source.
        let code = if path.is_absolute() { 1 } else { 2 };
        let problem = match path.is_dir() {
            true => "no dkms.conf in this directory",
            false => "no such file or directory",
        };
        return refuse(code, format!("{shown}: {problem} (expected a module source or archive)"));
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
