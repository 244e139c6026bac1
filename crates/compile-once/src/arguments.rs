//! Parses the arguments of a compiler call that compiles one file and does nothing else.

use std::env;
use std::ffi::OsString;
use std::path::Path;

/// Options followed by a word that is not a path.
const WITH_WORD: [&str; 4] = ["-D", "-U", "-x", "--param"];

/// Options followed by a path, in the same word or the next.
const WITH_PATH: [&str; 6] = ["-I", "-include", "-imacros", "-iquote", "-isystem", "-idirafter"];

/// Prefixes of options that affect only the object or the diagnostics.
const HARMLESS: [&str; 11] =
    ["-D", "-O", "-U", "-W", "-f", "-g", "-m", "--param=", "-std=", "-nostdinc", "-pipe"];

/// Prefixes of options that match [`HARMLESS`] but are not harmless: they make the compiler read or
/// write other files, or the compiler passes them to another program.
const HARMFUL: [&str; 20] = [
    "-Wa,",
    "-Wl,",
    "-Wp,",
    "-fauto-profile",
    "-fbranch-probabilities",
    "-fcallgraph-info",
    "-fdump",
    "-fmodule",
    "-fopt-info",
    "-fplugin",
    "-fprebuilt",
    "-fproc-stat",
    "-fprofile",
    "-fsanitize-",
    "-fsave-",
    "-fstack-usage",
    "-ftest-coverage",
    "-ftime-",
    "-gsplit-dwarf",
    "-mllvm",
];

/// Environment variables that affect the result of gcc or clang (gcc(1), "Environment Variables").
const VARIABLES: [&str; 13] = [
    "CCC_OVERRIDE_OPTIONS",
    "COMPILER_PATH",
    "CPATH",
    "C_INCLUDE_PATH",
    "GCC_COMPARE_DEBUG",
    "GCC_EXEC_PREFIX",
    "GCC_EXTRA_DIAGNOSTIC_OUTPUT",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "SOURCE_DATE_EPOCH",
];

/// Environment variables that make the compiler write further files.
const WRITING: [&str; 2] = ["DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES"];

/// The parsed arguments of a compiler call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// The options that affect the object, in order.
    pub(crate) options: Vec<CompilerOption>,
    /// The option for the kind of output: `-c`, or `-S` for assembly.
    pub(crate) makes: String,
    pub(crate) source: String,
    pub(crate) object: String,
    /// The file to which the compiler writes the object's dependencies, in make's syntax.
    pub(crate) dependencies: Option<String>,
}

/// One option as it was passed to the compiler.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CompilerOption {
    /// The option and its value, in one word or two.
    pub(crate) words: Vec<String>,
    /// The option's value, if it is a path.
    pub(crate) path: Option<String>,
}

impl Arguments {
    /// Parses `arguments`. Returns `None` if they could affect anything besides one object.
    pub(crate) fn read(arguments: &[OsString]) -> Option<Self> {
        let mut words = arguments.iter().map(|word| word.to_str().map(str::to_owned));
        let (mut makes, mut source, mut object, mut dependencies) = (None, None, None, None);
        let mut options = Vec::new();
        while let Some(word) = words.next() {
            let word = word?;
            let mut option = CompilerOption { words: vec![word.clone()], path: None };
            if word == "-o" {
                set(&mut object, words.next()??)?;
                continue;
            } else if let Some(file) = word.strip_prefix("-Wp,-MMD,") {
                set(&mut dependencies, file.to_owned())?;
                continue;
            } else if word == "-c" || word == "-S" {
                set(&mut makes, word)?;
                continue;
            } else if !word.starts_with('-') {
                set(&mut source, word)?;
                continue;
            } else if let Some(name) = WITH_PATH.iter().find(|it| word.starts_with(**it)) {
                if word == *name {
                    option.words.push(words.next()??);
                }
                option.path = option.words.concat().strip_prefix(name).map(str::to_owned);
            } else if WITH_WORD.contains(&word.as_str()) {
                option.words.push(words.next()??);
            } else if !is_harmless(&word) {
                return None;
            }
            options.push(option);
        }
        Some(Self { options, makes: makes?, source: source?, object: object?, dependencies })
    }

    /// Returns the words of all options.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.options.iter().flat_map(|option| &option.words).map(String::as_str)
    }

    /// Returns the values of all options whose value is a path.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.options.iter().filter_map(|option| option.path.as_deref())
    }
}

/// Returns the cache key of a compiler call with the arguments `words` in the current environment.
///
/// Returns `None` if the environment makes the compiler write further files.
pub(crate) fn key<'a>(compiler: &Path, words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if WRITING.iter().any(|name| env::var_os(name).is_some()) {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&bytes.len().to_le_bytes()).update(bytes);
    };
    add(compiler.as_os_str().as_encoded_bytes());
    for name in VARIABLES {
        add(env::var_os(name).unwrap_or_default().as_encoded_bytes());
    }
    for word in words {
        add(word.as_bytes());
    }
    Some(hasher.finalize().to_hex().to_string())
}

/// Sets `once` to `word`. Returns `None` if `once` was already set.
fn set(once: &mut Option<String>, word: String) -> Option<()> {
    once.replace(word).is_none().then_some(())
}

fn is_harmless(option: &str) -> bool {
    option == "-pg"
        || HARMLESS.iter().any(|it| option.starts_with(it))
            && !HARMFUL.iter().any(|it| option.starts_with(it))
}

/// Returns true if `path` is below /usr. Files there belong to packages and do not change during
/// builds.
pub(crate) fn is_of_packages(path: &Path) -> bool {
    path.starts_with("/usr")
}
