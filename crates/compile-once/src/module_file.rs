//! The file that modpost makes for each module, `foo.mod.c`, of which the headers are the most.
//!
//! It is a dozen lines behind `#include <linux/module.h>`, and a quarter of a second of the
//! compiler's. The same headers with the same options come out the same each time, so that they can
//! be compiled once (gcc(1), "Precompiled Headers"): the object is the same to the last byte.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::arguments::{self, Arguments, CompilerOption, is_of_packages};

/// What kbuild tells each module's files about their module. The headers only mention it, in what
/// they define for later.
const NAMES: [&str; 4] =
    ["KBUILD_BASENAME", "KBUILD_MODFILE", "KBUILD_MODNAME", "__KBUILD_MODNAME"];

/// Kbuild includes it before every file; it tells where the kernel's headers are.
const KCONFIG: &str = "include/linux/kconfig.h";

/// One such file, and how it is to be compiled.
#[derive(Debug)]
pub(crate) struct ModuleFile<'a> {
    pub(crate) arguments: &'a Arguments,
    /// The lines `#include <linux/…>` that it begins with.
    pub(crate) includes: String,
    /// The directory that relative paths are from; nothing if there are none.
    from: Option<String>,
}

impl<'a> ModuleFile<'a> {
    /// Finds the file; nothing if it, or what it includes, is not as kbuild has it.
    pub(crate) fn of(arguments: &'a Arguments) -> Option<Self> {
        let here = env::current_dir().ok()?;
        let path = |path: &str| Some(here.join(path)).filter(|path| is_plain(path));
        let source = path(&arguments.source)?;
        let is_include = |path: &&str| path.ends_with(KCONFIG);
        let headers = path(arguments.paths().find(is_include)?.strip_suffix(KCONFIG)?)?;
        let lasts = |path: PathBuf| path.starts_with(&headers) || is_of_packages(&path);
        if !arguments.source.ends_with(".mod.c")
            || arguments.makes != "-c"
            || source.starts_with(&headers)
            || !arguments.paths().all(|it| path(it).is_some_and(lasts))
        {
            return None;
        }
        let text = fs::read_to_string(&source).ok()?;
        let is_header = |line: &&str| line.starts_with("#include <linux/") && line.ends_with('>');
        let includes: String =
            text.lines().take_while(is_header).flat_map(|line| [line, "\n"]).collect();
        let is_relative = arguments.paths().any(|path| Path::new(path).is_relative());
        let from = if is_relative { Some(here.to_str()?.to_owned()) } else { None };
        (!includes.is_empty()).then_some(Self { arguments, includes, from })
    }

    /// A name for what its headers are to this compiler in this environment.
    pub(crate) fn name(&self, compiler: &Path) -> Option<String> {
        let words = self.options().flat_map(|option| &option.words).map(String::as_str);
        let from = self.from.as_deref().into_iter().chain([self.includes.as_str()]);
        arguments::name(compiler, words.chain(from))
    }

    /// The arguments that make a precompiled one of `header`, where the lines of includes are.
    pub(crate) fn precompiles(&self, header: &Path, precompiled: &Path) -> Vec<OsString> {
        let options = self.options().flat_map(|option| &option.words).map(OsString::from);
        let [kind, language, output] = ["-x", "c-header", "-o"].map(OsString::from);
        options.chain([kind, language, header.into(), output, precompiled.into()]).collect()
    }

    /// The arguments that compile it with the precompiled `header` and the file of its `names`,
    /// which must not be there yet when the header is read.
    pub(crate) fn compiles(&self, header: &Path, names: &Path, object: &Path) -> Vec<OsString> {
        let others = self.options().filter(|option| option.words[0] != "-include");
        let options = others.flat_map(|option| &option.words).map(OsString::from);
        let include = || OsString::from("-include");
        let files = [include(), header.into(), include(), names.into()];
        let [compile, output] = ["-c", "-o"].map(OsString::from);
        let rest = [compile, output, object.into(), OsString::from(&self.arguments.source)];
        options.chain(files).chain(rest).collect()
    }

    /// The lines that define what it is told about its module.
    pub(crate) fn names(&self) -> String {
        let defined = |option: &CompilerOption| {
            let (name, value) = name_of(option)?;
            Some(format!("#define {name} {value}\n"))
        };
        self.arguments.options.iter().filter_map(defined).collect()
    }

    /// All options but those names.
    fn options(&self) -> impl Iterator<Item = &CompilerOption> {
        self.arguments.options.iter().filter(|option| name_of(option).is_none())
    }
}

fn name_of(option: &CompilerOption) -> Option<(&str, &str)> {
    let (name, value) = option.words.first()?.strip_prefix("-D")?.split_once('=')?;
    NAMES.contains(&name).then_some((name, value))
}

/// Whether a path leads where it says, as far as its text can tell.
fn is_plain(path: &Path) -> bool {
    !path.components().any(|part| part == Component::ParentDir)
}
