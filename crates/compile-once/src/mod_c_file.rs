//! Recognises the `foo.mod.c` that modpost generates for each module.
//!
//! The file consists of `#include` lines and a dozen other lines, and takes a quarter of a second
//! to compile. Nearly all of that time is spent on the headers, which can be precompiled (gcc(1),
//! "Precompiled Headers"). The resulting object is identical, byte for byte.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::arguments::{self, Arguments, CompilerOption, is_of_packages};

/// The macros that contain the module's name. The headers use them only to define other macros.
const MODULE_MACROS: [&str; 4] =
    ["KBUILD_BASENAME", "KBUILD_MODFILE", "KBUILD_MODNAME", "__KBUILD_MODNAME"];

/// The header that kbuild includes before every file, relative to the kernel's headers.
const KCONFIG: &str = "include/linux/kconfig.h";

/// A `.mod.c` file and the arguments that compile it.
#[derive(Debug)]
pub(crate) struct ModCFile<'a> {
    pub(crate) arguments: &'a Arguments,
    /// The `#include <linux/…>` lines at the beginning of the file.
    pub(crate) includes: String,
    /// The working directory; `None` if every path in the options is absolute.
    from: Option<String>,
}

impl<'a> ModCFile<'a> {
    /// Reads the source file in `arguments`. Returns `None` if the file or the arguments are not
    /// exactly as kbuild writes them.
    pub(crate) fn of(arguments: &'a Arguments) -> Option<Self> {
        let here = env::current_dir().ok()?;
        let path = |path: &str| Some(here.join(path)).filter(|path| is_plain(path));
        let source = path(&arguments.source)?;
        let is_include = |path: &&str| path.ends_with(KCONFIG);
        let headers = path(arguments.paths().find(is_include)?.strip_suffix(KCONFIG)?)?;
        let is_stable = |path: PathBuf| path.starts_with(&headers) || is_of_packages(&path);
        if !arguments.source.ends_with(".mod.c")
            || arguments.makes != "-c"
            || source.starts_with(&headers)
            || !arguments.paths().all(|it| path(it).is_some_and(is_stable))
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

    /// Returns the cache key of the file's precompiled headers (see [`arguments::key`]).
    pub(crate) fn headers_key(&self, compiler: &Path) -> Option<String> {
        let words = self.options().flat_map(|option| &option.words).map(String::as_str);
        let from = self.from.as_deref().into_iter().chain([self.includes.as_str()]);
        arguments::key(compiler, words.chain(from))
    }

    /// Returns the compiler arguments that precompile the file `header` to the file `precompiled`.
    ///
    /// `header` contains the `#include` lines.
    pub(crate) fn header_arguments(&self, header: &Path, precompiled: &Path) -> Vec<OsString> {
        let options = self.options().flat_map(|option| &option.words).map(OsString::from);
        let [kind, language, output] = ["-x", "c-header", "-o"].map(OsString::from);
        options.chain([kind, language, header.into(), output, precompiled.into()]).collect()
    }

    /// Returns the compiler arguments that compile the file to `object` with the precompiled
    /// `header`.
    ///
    /// The file `macros` is included after `header`, which was precompiled without the macros.
    pub(crate) fn object_arguments(
        &self,
        header: &Path,
        macros: &Path,
        object: &Path,
    ) -> Vec<OsString> {
        let others = self.options().filter(|option| option.words[0] != "-include");
        let options = others.flat_map(|option| &option.words).map(OsString::from);
        let include = || OsString::from("-include");
        let files = [include(), header.into(), include(), macros.into()];
        let [compile, output] = ["-c", "-o"].map(OsString::from);
        let rest = [compile, output, object.into(), OsString::from(&self.arguments.source)];
        options.chain(files).chain(rest).collect()
    }

    /// Returns the `#define` lines for those of [`MODULE_MACROS`] that the arguments define.
    pub(crate) fn macros(&self) -> String {
        let defined = |option: &CompilerOption| {
            let (name, value) = module_macro(option)?;
            Some(format!("#define {name} {value}\n"))
        };
        self.arguments.options.iter().filter_map(defined).collect()
    }

    /// Returns the options except those that define one of [`MODULE_MACROS`].
    fn options(&self) -> impl Iterator<Item = &CompilerOption> {
        self.arguments.options.iter().filter(|option| module_macro(option).is_none())
    }
}

fn module_macro(option: &CompilerOption) -> Option<(&str, &str)> {
    let (name, value) = option.words.first()?.strip_prefix("-D")?.split_once('=')?;
    MODULE_MACROS.contains(&name).then_some((name, value))
}

/// Returns true if `path` contains no `..`.
fn is_plain(path: &Path) -> bool {
    !path.components().any(|part| part == Component::ParentDir)
}
