//! Precompiles the headers of the modules' `.mod.c` files once in a run.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::mod_c_file::ModCFile;

/// The precompiled headers of one key.
pub(crate) struct PrecompiledHeaders<'a> {
    file: &'a ModCFile<'a>,
    results: PathBuf,
    /// Their directory; it exists only while they are usable.
    dir: PathBuf,
}

/// The file in it that holds the `#include` lines.
const HEADER: &str = "includes.h";
/// The precompiled headers, under the name that gcc looks for beside that file (gcc(1)).
const PRECOMPILED: &str = "includes.h.gch";
/// An object's dependencies, without its source.
const DEPENDENCIES: &str = "dependencies";

impl<'a> PrecompiledHeaders<'a> {
    pub(crate) fn of(results: PathBuf, key: &str, file: &'a ModCFile<'a>) -> Self {
        let dir = results.join(format!("{key}.headers"));
        Self { file, results, dir }
    }

    /// Returns true if they can be used.
    pub(crate) fn exist(&self) -> bool {
        self.dir.is_dir()
    }

    /// Returns true for exactly one caller, which must create them.
    pub(crate) fn claim(&self) -> bool {
        File::create_new(self.dir.with_extension("claimed")).is_ok()
    }

    /// Compiles the file with them; `start` runs the compiler. Returns `None` on failure, after
    /// which nothing uses them again.
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

    /// Creates them after the file was compiled without them. Compiles the file once more with
    /// them, and discards them unless both objects are identical.
    pub(crate) fn make(&self, start: impl Fn(&[OsString]) -> io::Result<Output>) -> io::Result<()> {
        let dir = tempfile::Builder::new().prefix(".headers").tempdir_in(&self.results)?;
        let (header, precompiled) = (dir.path().join(HEADER), dir.path().join(PRECOMPILED));
        let arguments = self.file.arguments;
        if let Some(file) = &arguments.dependencies {
            let all = fs::read_to_string(file)?;
            let rest = self.other_dependencies(&all).ok_or(io::ErrorKind::InvalidData)?;
            fs::write(dir.path().join(DEPENDENCIES), rest)?;
        }
        fs::write(&header, &self.file.includes)?;
        succeeded(start(&self.file.header_arguments(&header, &precompiled))?)?;
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
        let macros = tempfile::Builder::new().suffix(".h").tempfile_in(&self.results)?;
        fs::write(&macros, self.file.macros())?;
        succeeded(start(&self.file.object_arguments(&dir.join(HEADER), macros.path(), object))?)
    }

    /// The start of a dependency file: the preprocessor names the object after its source.
    fn own_dependencies(&self) -> String {
        let source = &self.file.arguments.source;
        let name = Path::new(source).file_stem().unwrap_or_default();
        format!("{}.o: {source}", name.display())
    }

    /// The dependencies after the source. Returns `None` if a name contains blanks.
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
