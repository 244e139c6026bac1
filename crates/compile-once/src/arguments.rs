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

/// Exceptions to them: options that read or write other files, or are passed to another program.
const MORE: [&str; 20] = [
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

/// Variables that change the result of gcc or clang (gcc(1), "Environment Variables").
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

/// Variables that make them write further files.
const WRITING: [&str; 2] = ["DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES"];

/// The parsed arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Everything that affects the object, in order.
    pub(crate) options: Vec<CompilerOption>,
    /// `-c`, or `-S` for assembly.
    pub(crate) makes: String,
    pub(crate) source: String,
    pub(crate) object: String,
    /// The file for the object's dependencies, in make's syntax.
    pub(crate) dependencies: Option<String>,
}

/// One option as given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CompilerOption {
    /// Its word or words.
    pub(crate) words: Vec<String>,
    /// The file or directory that it names.
    pub(crate) path: Option<String>,
}

impl Arguments {
    /// Returns `None` unless the arguments are known to affect nothing but one object.
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

    /// All words of the options.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.options.iter().flat_map(|option| &option.words).map(String::as_str)
    }

    /// All paths that the options name.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.options.iter().filter_map(|option| option.path.as_deref())
    }
}

/// The cache key of what this compiler makes of these words in this environment. Returns `None` if
/// the environment makes it write further files.
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

/// Returns `None` if it is set already.
fn set(once: &mut Option<String>, word: String) -> Option<()> {
    once.replace(word).is_none().then_some(())
}

fn is_harmless(option: &str) -> bool {
    option == "-pg"
        || HARMLESS.iter().any(|it| option.starts_with(it))
            && !MORE.iter().any(|it| option.starts_with(it))
}

/// Returns true if the path is below /usr, where packages have files that no build changes.
pub(crate) fn is_of_packages(path: &Path) -> bool {
    path.starts_with("/usr")
}
