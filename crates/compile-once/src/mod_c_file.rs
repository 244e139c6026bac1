//! Recognizes the `foo.mod.c` that modpost generates for each module.
//!
//! It is a dozen lines after `#include <linux/module.h>`, and takes a quarter of a second to
//! compile. Nearly all of that is spent on headers, which can be precompiled (gcc(1), "Precompiled
//! Headers"): the object is the same to the last byte.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::arguments::{self, Arguments, CompilerOption, is_of_packages};

/// The macros in which kbuild names the module. The headers use them only inside other macros.
const MODULE_MACROS: [&str; 4] =
    ["KBUILD_BASENAME", "KBUILD_MODFILE", "KBUILD_MODNAME", "__KBUILD_MODNAME"];

/// Kbuild includes it before every file; its path gives the kernel's headers directory.
const KCONFIG: &str = "include/linux/kconfig.h";

/// A `.mod.c` file and the arguments that compile it.
#[derive(Debug)]
pub(crate) struct ModCFile<'a> {
    pub(crate) arguments: &'a Arguments,
    /// The `#include <linux/…>` lines at its top.
    pub(crate) includes: String,
    /// The working directory, if any path is relative.
    from: Option<String>,
}

impl<'a> ModCFile<'a> {
    /// Returns `None` if the file or its includes are not as kbuild writes them.
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

    /// The cache key of its precompiled headers, for this compiler in this environment.
    pub(crate) fn headers_key(&self, compiler: &Path) -> Option<String> {
        let words = self.options().flat_map(|option| &option.words).map(String::as_str);
        let from = self.from.as_deref().into_iter().chain([self.includes.as_str()]);
        arguments::key(compiler, words.chain(from))
    }

    /// The arguments that precompile `header`, which holds the `#include` lines.
    pub(crate) fn header_arguments(&self, header: &Path, precompiled: &Path) -> Vec<OsString> {
        let options = self.options().flat_map(|option| &option.words).map(OsString::from);
        let [kind, language, output] = ["-x", "c-header", "-o"].map(OsString::from);
        options.chain([kind, language, header.into(), output, precompiled.into()]).collect()
    }

    /// The arguments that compile the file with the precompiled `header`. The macros come after it,
    /// because it was compiled without them.
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

    /// The lines that define the module's macros.
    pub(crate) fn macros(&self) -> String {
        let defined = |option: &CompilerOption| {
            let (name, value) = module_macro(option)?;
            Some(format!("#define {name} {value}\n"))
        };
        self.arguments.options.iter().filter_map(defined).collect()
    }

    /// The options, without the module's macros.
    fn options(&self) -> impl Iterator<Item = &CompilerOption> {
        self.arguments.options.iter().filter(|option| module_macro(option).is_none())
    }
}

fn module_macro(option: &CompilerOption) -> Option<(&str, &str)> {
    let (name, value) = option.words.first()?.strip_prefix("-D")?.split_once('=')?;
    MODULE_MACROS.contains(&name).then_some((name, value))
}

/// Returns true if the path has no `..` in it.
fn is_plain(path: &Path) -> bool {
    !path.components().any(|part| part == Component::ParentDir)
}
