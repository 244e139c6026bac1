//! The arguments of a compiler that may compile one file and does nothing else.

use std::env;
use std::ffi::OsString;
use std::path::Path;

/// Options that a word follows which says no path.
const WITH_WORD: [&str; 4] = ["-D", "-U", "-x", "--param"];

/// Options that a path follows, as a word of its own or not.
const WITH_PATH: [&str; 6] = ["-I", "-include", "-imacros", "-iquote", "-isystem", "-idirafter"];

/// How options begin that only change the object, or what is said about it.
const HARMLESS: [&str; 11] =
    ["-D", "-O", "-U", "-W", "-f", "-g", "-m", "--param=", "-std=", "-nostdinc", "-pipe"];

/// And those among them that do more: they write or read other files, or are another program's.
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

/// Variables that change what gcc and clang make of their arguments (gcc(1), "Environment
/// Variables").
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

/// Variables that have them write further files.
const WRITING: [&str; 2] = ["DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES"];

/// How one file is to be compiled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// In their order, with all that has an effect on the object.
    pub(crate) options: Vec<CompilerOption>,
    /// `-c`, or `-S` for assembly.
    pub(crate) makes: String,
    pub(crate) source: String,
    /// What is to be written.
    pub(crate) object: String,
    /// The file for what the object depends on, in make's language.
    pub(crate) dependencies: Option<String>,
}

/// One option as it was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CompilerOption {
    /// Its word or words.
    pub(crate) words: Vec<String>,
    /// The file or directory that it names.
    pub(crate) path: Option<String>,
}

impl Arguments {
    /// Reads what is known to have no other effect than on one object; nothing else is understood.
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

/// A name for what this compiler makes of these words in this environment; nothing if it writes
/// further files there.
pub(crate) fn name<'a>(
    compiler: &Path,
    words: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
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

/// Sets what may be said once only.
fn set(once: &mut Option<String>, word: String) -> Option<()> {
    once.replace(word).is_none().then_some(())
}

fn is_harmless(option: &str) -> bool {
    option == "-pg"
        || HARMLESS.iter().any(|it| option.starts_with(it))
            && !MORE.iter().any(|it| option.starts_with(it))
}

/// Whether a path is where packages have their files, which no build changes.
pub(crate) fn is_of_packages(path: &Path) -> bool {
    path.starts_with("/usr")
}
