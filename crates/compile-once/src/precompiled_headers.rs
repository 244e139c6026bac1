//! Precompiles the headers of the modules' `.mod.c` files once per run.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::mod_c_file::ModCFile;

/// The precompiled headers for one cache key.
pub(crate) struct PrecompiledHeaders<'a> {
    file: &'a ModCFile<'a>,
    results: PathBuf,
    /// The directory of the headers. It exists only while the headers are usable.
    dir: PathBuf,
}

/// The name of the file that contains the `#include` lines.
const HEADER: &str = "includes.h";
/// The name under which gcc looks for the precompiled form of [`HEADER`] (gcc(1)).
const PRECOMPILED: &str = "includes.h.gch";
/// The name of the file that contains an object's dependencies, except the object's source.
const DEPENDENCIES: &str = "dependencies";

impl<'a> PrecompiledHeaders<'a> {
    pub(crate) fn of(results: PathBuf, key: &str, file: &'a ModCFile<'a>) -> Self {
        let dir = results.join(format!("{key}.headers"));
        Self { file, results, dir }
    }

    /// Returns true if the headers can be used.
    pub(crate) fn exist(&self) -> bool {
        self.dir.is_dir()
    }

    /// Returns true for exactly one caller among all processes, and false for all others. That one
    /// caller must create the headers.
    pub(crate) fn claim(&self) -> bool {
        File::create_new(self.dir.with_extension("claimed")).is_ok()
    }

    /// Compiles the file with the headers, using `start` to run the compiler.
    ///
    /// If the compilation fails, returns `None`, and the precompiled headers are not used again.
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

    /// Precompiles the headers of the file, using `start` to run the compiler.
    ///
    /// The file must already have been compiled without precompiled headers. This function compiles
    /// the file again with the headers, and discards the headers unless both objects are identical.
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

    /// Returns the beginning of a dependency file: the names of the object and its source.
    ///
    /// The preprocessor derives the object's name from the name of the source.
    fn own_dependencies(&self) -> String {
        let source = &self.file.arguments.source;
        let name = Path::new(source).file_stem().unwrap_or_default();
        format!("{}.o: {source}", name.display())
    }

    /// Returns the part of the dependency file `all` that follows the name of the source, or `None`
    /// if a name contains blanks.
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
