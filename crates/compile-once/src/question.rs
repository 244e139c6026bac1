//! What a compiler is asked to do, and whether its answer depends on the module that asks.
//!
//! Kbuild asks two things of the compiler for every module that come out the same for all modules
//! of a kernel: some twenty times whether it knows an option, by compiling `/dev/null` with it
//! (`scripts/Makefile.compiler`), and since Linux 6.13 to compile `scripts/module-common.c`
//! (`scripts/Makefile.modfinal`). Only these are looked for, and only with arguments that are
//! known to have no other effect than on the object: whatever else is asked is the compiler's.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The file of the kernel that every module contains.
const COMMON: &str = "scripts/module-common.c";

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

/// A question whose answer is the same for every module of a kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The arguments, but for the name of an object that has no part in the answer.
    asked: Vec<String>,
    /// The object, which the compiler is to write.
    pub(crate) object: PathBuf,
    /// What the object depends on, in make's language, if that is to be written too.
    pub(crate) dependencies: Option<PathBuf>,
}

impl Question {
    /// Reads the arguments of a compiler; nothing if the answer may be another one each time.
    pub(crate) fn read(arguments: &[OsString]) -> Option<Self> {
        let mut words = arguments.iter().map(|word| word.to_str());
        let (mut object, mut dependencies, mut source) = (None, None, None);
        let (mut asked, mut paths, mut compiles) = (Vec::new(), Vec::new(), false);
        while let Some(word) = words.next() {
            let word = word?;
            asked.push(word.to_owned());
            if word == "-o" {
                asked.pop();
                set(&mut object, words.next()??)?;
            } else if let Some(file) = word.strip_prefix("-Wp,-MMD,") {
                set(&mut dependencies, file)?;
            } else if let Some(option) = WITH_PATH.iter().find(|it| word.starts_with(**it)) {
                let path = if word == *option { words.next()?? } else { &word[option.len()..] };
                asked.push(path.to_owned());
                paths.push(path);
            } else if WITH_WORD.contains(&word) {
                asked.push(words.next()??.to_owned());
            } else if word == "-c" || word == "-S" {
                compiles = true;
            } else if !word.starts_with('-') {
                set(&mut source, word)?;
            } else if !is_harmless(word) {
                return None;
            }
        }
        let (source, object) = (source?, object?);
        if source == "/dev/null" {
            if !paths.is_empty() || dependencies.is_some() {
                return None;
            }
        } else {
            let headers = Path::new(source).ancestors().nth(2)?;
            let lasts = |path: &&str| Path::new(path).starts_with(headers) || is_of_packages(path);
            if Path::new(source) != headers.join(COMMON)
                || !headers.is_absolute()
                || !paths.iter().all(lasts)
            {
                return None;
            }
            // What the dependencies are of is the object, by name.
            asked.push(object.to_owned());
        }
        let dependencies = dependencies.map(PathBuf::from);
        compiles.then(|| Self { asked, object: object.into(), dependencies })
    }

    /// A name for the question put to this compiler in this environment.
    ///
    /// The working directory has no part in it: it shows in the debugging symbols only, and what
    /// keeps those is built without us.
    pub(crate) fn name(&self, compiler: &Path) -> Option<String> {
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
        for word in &self.asked {
            add(word.as_bytes());
        }
        Some(hasher.finalize().to_hex().to_string())
    }
}

/// Sets what may be said once only.
fn set<'a>(once: &mut Option<&'a str>, word: &'a str) -> Option<()> {
    once.replace(word).is_none().then_some(())
}

fn is_harmless(option: &str) -> bool {
    option == "-pg"
        || HARMLESS.iter().any(|it| option.starts_with(it))
            && !MORE.iter().any(|it| option.starts_with(it))
}

/// Whether a path is where packages have their files, which no build changes.
fn is_of_packages(path: &str) -> bool {
    Path::new(path).starts_with("/usr")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn read(line: &str) -> Option<Question> {
        Question::read(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[rstest]
    #[case::option(
        "-Werror -D__KERNEL__ -std=gnu11 -O2 -falign-jumps=1 -c -x c /dev/null -o .tmp_1/tmp"
    )]
    #[case::assembly("-fstack-protector -S -x c /dev/null -o .tmp_1/tmp")]
    #[case::words("-D A=b --param x=1 -U C -pg -m64 -c -x c /dev/null -o t")]
    #[case::common(
        "-Wp,-MMD,./..c.o.d -nostdinc -I/h/include -include /h/include/linux/kconfig.h -isystem /usr/lib/gcc/include -g -c -o c.o /h/scripts/module-common.c"
    )]
    fn knows_what_is_the_same_for_all(#[case] line: &str) {
        assert!(read(line).is_some());
    }

    #[rstest]
    #[case::own_file("-c -o a.o a.c")]
    #[case::own_common("-c -o c.o scripts/module-common.c")]
    #[case::another_file("-c -o c.o /h/scripts/common.c")]
    #[case::two_files("-c -x c /dev/null a.c -o t")]
    #[case::two_objects("-c -x c /dev/null -o t -o u")]
    #[case::input("-c -x c - -o t")]
    #[case::no_object("-c -x c /dev/null")]
    #[case::object_missing("-c -x c /dev/null -o")]
    #[case::links("-x c /dev/null -o t")]
    #[case::preprocesses("-E -x c /dev/null -o t")]
    #[case::includes("-include config.h -c -x c /dev/null -o t")]
    #[case::own_headers("-I/w/include -c -o c.o /h/scripts/module-common.c")]
    #[case::relative_headers("-Iinclude -c -o c.o /h/scripts/module-common.c")]
    #[case::plugin("-fplugin=./p.so -c -x c /dev/null -o t")]
    #[case::further_file("-gsplit-dwarf -c -x c /dev/null -o t")]
    #[case::statistics("-fstack-usage -c -x c /dev/null -o t")]
    #[case::assembler("-Wa,-al=list -c -x c /dev/null -o t")]
    #[case::other_dependencies("-MD -MF t.d -c -x c /dev/null -o t")]
    #[case::answer_file("@options -c -x c /dev/null -o t")]
    #[case::unknown("-specs=x -c -x c /dev/null -o t")]
    #[case::asks_itself("-print-file-name=include -c -x c /dev/null -o t")]
    #[case::version("--version")]
    #[case::nothing("")]
    fn leaves_the_rest_to_the_compiler(#[case] line: &str) {
        assert_eq!(read(line), None);
    }

    #[test]
    fn the_name_is_of_all_that_counts() {
        let gcc = Path::new("/usr/bin/gcc");
        let name = |line: &str, compiler| read(line).unwrap().name(compiler).unwrap();
        let option = name("-O2 -c -x c /dev/null -o .tmp_1/tmp", gcc);
        assert_eq!(name("-O2 -c -x c /dev/null -o .tmp_2/tmp", gcc), option);
        assert_ne!(name("-O3 -c -x c /dev/null -o .tmp_1/tmp", gcc), option);
        assert_ne!(name("-O2 -S -x c /dev/null -o .tmp_1/tmp", gcc), option);
        assert_ne!(name("-O2 -c -x c /dev/null -o t", Path::new("/usr/bin/clang")), option);

        let common = name("-c -o c.o /h/scripts/module-common.c", gcc);
        assert_ne!(name("-c -o d.o /h/scripts/module-common.c", gcc), common);
        assert_ne!(name("-c -o c.o /k/scripts/module-common.c", gcc), common);
    }
}
