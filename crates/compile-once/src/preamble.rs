//! Headers that were compiled once in this run, for the next module's file that begins with them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::module_file::ModuleFile;

/// The compiled headers of one name, beside the answers.
pub(crate) struct Preamble<'a> {
    file: &'a ModuleFile<'a>,
    answers: PathBuf,
    /// The directory of them when they are of use.
    dir: PathBuf,
}

/// In the directory, the lines that include the headers.
const HEADER: &str = "includes.h";
/// The compiled headers, under the name that gcc looks for beside those lines (gcc(1)).
const PRECOMPILED: &str = "includes.h.gch";
/// What an object depends on, behind its own name and that of its source.
const DEPENDENCIES: &str = "dependencies";

impl<'a> Preamble<'a> {
    pub(crate) fn of(answers: PathBuf, name: &str, file: &'a ModuleFile<'a>) -> Self {
        let dir = answers.join(format!("{name}.headers"));
        Self { file, answers, dir }
    }

    /// Whether there are compiled headers.
    pub(crate) fn is_there(&self) -> bool {
        self.dir.is_dir()
    }

    /// Whether it is for us to make them: only one is told so, once.
    pub(crate) fn is_ours_to_make(&self) -> bool {
        File::create_new(self.dir.with_extension("claimed")).is_ok()
    }

    /// Has the file compiled with them, by a compiler that is started with the arguments given.
    /// Nothing if that does not work; then nobody tries again.
    pub(crate) fn compile(
        &self,
        start: impl Fn(&[OsString]) -> io::Result<Output>,
    ) -> Option<Output> {
        let object = Path::new(&self.file.arguments.object);
        let compiled = self.compile_to(object, &self.dir, start).and_then(|said| {
            if let Some(file) = &self.file.arguments.dependencies {
                let rest = fs::read_to_string(self.dir.join(DEPENDENCIES))?;
                fs::write(file, self.own_dependencies() + &rest)?;
            }
            Ok(said)
        });
        if compiled.is_err() {
            let _ = fs::rename(&self.dir, self.dir.with_extension("of_no_use"));
        }
        compiled.ok()
    }

    /// Makes the compiled headers, when the file was compiled without them: it is compiled once
    /// more, and the two objects must be the same.
    pub(crate) fn make(&self, start: impl Fn(&[OsString]) -> io::Result<Output>) -> io::Result<()> {
        let dir = tempfile::Builder::new().prefix(".headers").tempdir_in(&self.answers)?;
        let (header, precompiled) = (dir.path().join(HEADER), dir.path().join(PRECOMPILED));
        let arguments = self.file.arguments;
        if let Some(file) = &arguments.dependencies {
            let all = fs::read_to_string(file)?;
            let rest = self.other_dependencies(&all).ok_or(io::ErrorKind::InvalidData)?;
            fs::write(dir.path().join(DEPENDENCIES), rest)?;
        }
        fs::write(&header, &self.file.includes)?;
        succeeded(start(&self.file.precompiles(&header, &precompiled))?)?;
        let object = dir.path().join("object");
        self.compile_to(&object, dir.path(), start)?;
        if fs::read(&object)? != fs::read(&arguments.object)? {
            return Err(io::ErrorKind::InvalidData.into());
        }
        fs::remove_file(&object)?;
        fs::rename(dir.path(), &self.dir)
    }

    fn compile_to(
        &self,
        object: &Path,
        dir: &Path,
        start: impl Fn(&[OsString]) -> io::Result<Output>,
    ) -> io::Result<Output> {
        let names = tempfile::Builder::new().suffix(".h").tempfile_in(&self.answers)?;
        fs::write(&names, self.file.names())?;
        succeeded(start(&self.file.compiles(&dir.join(HEADER), names.path(), object))?)
    }

    /// What a file of dependencies begins with: the preprocessor names the object by its source.
    fn own_dependencies(&self) -> String {
        let source = &self.file.arguments.source;
        let name = Path::new(source).file_stem().unwrap_or_default();
        format!("{}.o: {source}", name.display())
    }

    /// The rest of them; nothing if a name has blanks in it.
    fn other_dependencies(&self, all: &str) -> Option<String> {
        let words: Vec<&str> = all.split_whitespace().filter(|word| *word != "\\").collect();
        let (own, others) = words.split_at_checked(2)?;
        let is_whole = own.join(" ") == self.own_dependencies()
            && !words.iter().any(|word| word.ends_with('\\'));
        is_whole.then(|| others.iter().flat_map(|word| [" \\\n ", word]).collect::<String>() + "\n")
    }
}

fn succeeded(said: Output) -> io::Result<Output> {
    if said.status.success() { Ok(said) } else { Err(io::ErrorKind::Other.into()) }
}
